// Package roster says, from outside, how the nodes of a cluster stand: what the API
// knows of its members, of requests to become one, and of the tokens to ask with.
// A machine that has not joined cannot be seen here; it tells on its own console.
package roster

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/imgbuild/imgbuild/internal/kubeapi"
	"github.com/imgbuild/imgbuild/internal/node/config"
)

// Roster is a cluster at one moment.
type Roster struct {
	Cluster  string    `json:"cluster"`
	Server   string    `json:"server"`
	Version  string    `json:"version"` // of the API server
	Nodes    []Node    `json:"nodes"`
	Requests []Request `json:"requests"`         // certificates that wait for an answer
	Tokens   []Token   `json:"tokens"`           // to join with
	Hidden   []string  `json:"hidden,omitempty"` // what this user may not see
}

// Node is a member.
type Node struct {
	Name      string       `json:"name"`
	Role      string       `json:"role"`
	Ready     bool         `json:"ready"`
	Waiting   string       `json:"waiting,omitempty"` // why it is not Ready
	Since     time.Time    `json:"since"`             // it is Ready, or is not
	Cordoned  bool         `json:"cordoned,omitempty"`
	Version   string       `json:"version"` // of the kubelet
	OS        string       `json:"os"`
	Address   string       `json:"address"`
	Joined    time.Time    `json:"joined"`
	FirstBoot *config.Note `json:"firstBoot,omitempty"` // as the node noted it
}

// Request is a certificate signing request without an answer.
type Request struct {
	Name  string    `json:"name"`
	By    string    `json:"by"`
	Since time.Time `json:"since"`
}

// Token is a bootstrap token; only its public half is read.
type Token struct {
	ID   string     `json:"id"`
	Ends *time.Time `json:"ends,omitempty"` // nil: never
}

// client is what a cluster is asked with.
type client interface {
	Get(ctx context.Context, path string, out any) error
}

var _ client = (*kubeapi.Client)(nil)

// Read asks the cluster. What the user may not see is named, not failed.
func Read(ctx context.Context, c client) (*Roster, error) {
	r := &Roster{Nodes: []Node{}, Requests: []Request{}, Tokens: []Token{}}
	var version struct{ GitVersion string }
	if err := c.Get(ctx, "/version", &version); err != nil {
		return nil, err
	}
	r.Version = version.GitVersion
	for _, part := range []struct {
		name string
		read func(*Roster, context.Context, client) error
	}{{"nodes", (*Roster).readNodes}, {"requests", (*Roster).readRequests}, {"tokens", (*Roster).readTokens}} {
		err := part.read(r, ctx, c)
		if forbidden := (*kubeapi.Forbidden)(nil); errors.As(err, &forbidden) && part.name != "nodes" {
			r.Hidden = append(r.Hidden, part.name)
			continue
		}
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

type meta struct {
	Name              string
	CreationTimestamp time.Time
	Labels            map[string]string
	Annotations       map[string]string
}

type condition struct {
	Type, Status, Reason, Message string
	LastTransitionTime            time.Time
}

type node struct {
	Metadata meta
	Spec     struct{ Unschedulable bool }
	Status   struct {
		Conditions []condition
		Addresses  []struct{ Type, Address string }
		NodeInfo   struct{ KubeletVersion, OSImage string }
	}
}

func (r *Roster) readNodes(ctx context.Context, c client) error {
	var list struct{ Items []node }
	if err := c.Get(ctx, "/api/v1/nodes", &list); err != nil {
		return err
	}
	for _, n := range list.Items {
		r.Nodes = append(r.Nodes, n.member())
	}
	slices.SortFunc(r.Nodes, func(a, b Node) int { return strings.Compare(a.Role+a.Name, b.Role+b.Name) }) // masters first
	return nil
}

func (n node) member() Node {
	m := Node{Name: n.Metadata.Name, Role: config.Worker, Cordoned: n.Spec.Unschedulable, Joined: n.Metadata.CreationTimestamp, Since: n.Metadata.CreationTimestamp,
		Version: n.Status.NodeInfo.KubeletVersion, OS: n.Status.NodeInfo.OSImage, Waiting: "its kubelet has not said anything yet"}
	if _, ok := n.Metadata.Labels["node-role.kubernetes.io/control-plane"]; ok {
		m.Role = config.Master
	}
	for _, a := range n.Status.Addresses {
		if a.Type == "InternalIP" && m.Address == "" {
			m.Address = a.Address
		}
	}
	for _, c := range n.Status.Conditions {
		if c.Type == "Ready" {
			m.Ready, m.Since, m.Waiting = c.Status == "True", c.LastTransitionTime, ""
			if !m.Ready {
				m.Waiting = strings.TrimSpace(c.Message + " (" + c.Reason + ")")
			}
		}
	}
	var note config.Note
	if text := n.Metadata.Annotations[config.Annotation]; text != "" && json.Unmarshal([]byte(text), &note) == nil {
		m.FirstBoot = &note
	}
	return m
}

func (r *Roster) readRequests(ctx context.Context, c client) error {
	var list struct {
		Items []struct {
			Metadata meta
			Spec     struct{ Username string }
			Status   struct {
				Conditions  []condition
				Certificate string
			}
		}
	}
	if err := c.Get(ctx, "/apis/certificates.k8s.io/v1/certificatesigningrequests", &list); err != nil {
		return err
	}
	for _, q := range list.Items {
		if len(q.Status.Conditions) == 0 && q.Status.Certificate == "" {
			r.Requests = append(r.Requests, Request{q.Metadata.Name, q.Spec.Username, q.Metadata.CreationTimestamp})
		}
	}
	return nil
}

func (r *Roster) readTokens(ctx context.Context, c client) error {
	var list struct {
		Items []struct{ Data map[string][]byte }
	}
	if err := c.Get(ctx, "/api/v1/namespaces/kube-system/secrets?fieldSelector="+url.QueryEscape("type=bootstrap.kubernetes.io/token"), &list); err != nil {
		return err
	}
	for _, s := range list.Items {
		t := Token{ID: string(s.Data["token-id"])}
		if ends, err := time.Parse(time.RFC3339, string(s.Data["expiration"])); err == nil {
			t.Ends = &ends
		}
		r.Tokens = append(r.Tokens, t)
	}
	return nil
}
