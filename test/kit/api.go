package kit

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/imgbuild/imgbuild/internal/vnet"
)

// API asks the cluster from outside, as an operator would: with nothing but the
// kubeconfig that imgbuild minted before the cluster was there. It costs the
// emulated nodes less than a kubectl on them.
type API struct {
	server string
	client *http.Client
}

// kubeconfig is the part of a kubeconfig that is read here; encoding/json reads
// base64 into bytes.
type kubeconfig struct {
	Clusters []struct {
		Cluster struct {
			Server string
			CA     []byte `json:"certificate-authority-data"`
		}
	}
	Users []struct {
		User struct {
			Cert []byte `json:"client-certificate-data"`
			Key  []byte `json:"client-key-data"`
		}
	}
}

// Dial is how a client connects; Dialer is that of a network.
type Dial = func(ctx context.Context, network, address string) (net.Conn, error)

// NewAPI mints a kubeconfig and returns a client that dials so; an answer may take
// that long.
func (k Kit) NewAPI(ctx context.Context, dial Dial, timeout time.Duration) (*API, error) {
	text, err := k.Imgbuild(ctx, "cluster", "kubeconfig", filepath.Join(k.Dir, "cluster"))
	if err != nil {
		return nil, err
	}
	var kc kubeconfig
	if err := yaml.Unmarshal([]byte(text), &kc); err != nil || len(kc.Clusters) != 1 || len(kc.Users) != 1 {
		return nil, fmt.Errorf("reading the minted kubeconfig: %w", err)
	}
	pair, err := tls.X509KeyPair(kc.Users[0].User.Cert, kc.Users[0].User.Key)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(kc.Clusters[0].Cluster.CA) {
		return nil, errors.New("the minted kubeconfig holds no CA")
	}
	return &API{kc.Clusters[0].Cluster.Server, &http.Client{Timeout: timeout, Transport: &http.Transport{
		DialContext:     dial,
		TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}}}}, nil
}

// Dialer connects through a network, as net/http wants it.
func Dialer(n *vnet.Net) Dial {
	return func(ctx context.Context, _, address string) (net.Conn, error) { return n.Dial(ctx, address) }
}

// DialMaster connects to the first master's API, whatever the endpoint is: the gateway does not reach
// a balancer of its own.
func DialMaster(n *vnet.Net) Dial {
	return func(ctx context.Context, _, _ string) (net.Conn, error) { return n.Dial(ctx, Endpoint) }
}

// Post makes an object; one that is there already is no error.
func (a *API) Post(ctx context.Context, path string, object any) error {
	return a.send(ctx, http.MethodPost, path, "application/json", object, http.StatusCreated, http.StatusConflict)
}

// Patch changes an object (RFC 7396).
func (a *API) Patch(ctx context.Context, path string, change any) error {
	return a.send(ctx, http.MethodPatch, path, "application/merge-patch+json", change, http.StatusOK)
}

// Delete takes an object away; one that is not there is no error.
func (a *API) Delete(ctx context.Context, path string) error {
	return a.send(ctx, http.MethodDelete, path, "application/json", nil, http.StatusOK, http.StatusAccepted, http.StatusNotFound)
}

func (a *API) send(ctx context.Context, method, path, kind string, object any, good ...int) error {
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	if object == nil {
		body = nil
	}
	req, err := http.NewRequestWithContext(ctx, method, a.server+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", kind)
	res, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // only the status counts
	if !slices.Contains(good, res.StatusCode) {
		return fmt.Errorf("%s %s: %s", method, path, res.Status)
	}
	return nil
}

// Get reads one object or list.
func (a *API) Get(ctx context.Context, path string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.server+path, nil)
	if err != nil {
		return err
	}
	res, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // read only
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, res.Status)
	}
	return json.NewDecoder(res.Body).Decode(out)
}

type condition struct {
	Type, Status      string
	LastHeartbeatTime time.Time // nodes only
}

// Object is what is read of a node or a pod.
type Object struct {
	Metadata struct {
		Name, Namespace, UID string
		Labels, Annotations  map[string]string
	}
	Spec struct {
		NodeName   string
		Containers []struct{ Image string }
	}
	Status struct {
		Phase             string
		PodIP             string
		Conditions        []condition
		ContainerStatuses []struct {
			Ready        bool
			RestartCount int
		}
	}
}

// Heard is when a node last said how it is.
func (o Object) Heard() (last time.Time) {
	for _, c := range o.Status.Conditions {
		if c.LastHeartbeatTime.After(last) {
			last = c.LastHeartbeatTime
		}
	}
	return last
}

// Ready says whether a node or a pod is Ready.
func (o Object) Ready() bool {
	for _, c := range o.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True"
		}
	}
	return false
}

// List reads a list of nodes or pods.
func (a *API) List(ctx context.Context, path string) ([]Object, error) {
	var list struct{ Items []Object }
	return list.Items, a.Get(ctx, path, &list)
}

// Until asks every few seconds until what says yes; when ctx ends, the error says
// what was missing last.
func (a *API) Until(ctx context.Context, what func(context.Context) error) error {
	for {
		err := what(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(4 * time.Second):
		}
	}
}

// NodesReady wants that many nodes, all Ready.
func (c *Cluster) NodesReady(n int) func(context.Context) error {
	return func(ctx context.Context) error {
		nodes, err := c.API.List(ctx, "/api/v1/nodes")
		ready := 0
		for _, o := range nodes {
			if o.Ready() {
				ready++
			}
		}
		if err == nil && (ready != n || len(nodes) != n) {
			err = fmt.Errorf("%d of %d nodes are Ready, want %d", ready, len(nodes), n)
		}
		return err
	}
}

// NodeReady wants a node whose name begins so to be Ready, and to have said so since:
// after a power cut the API still tells what was.
func (c *Cluster) NodeReady(prefix string, since time.Time) func(context.Context) error {
	return func(ctx context.Context) error {
		nodes, err := c.API.List(ctx, "/api/v1/nodes")
		if err == nil && !slices.ContainsFunc(nodes, func(o Object) bool {
			return strings.HasPrefix(o.Metadata.Name, prefix) && o.Ready() && o.Heard().After(since)
		}) {
			err = fmt.Errorf("the %s is not Ready", prefix)
		}
		return err
	}
}

// PodsReady wants every pod of the cluster Running and Ready.
func (a *API) PodsReady(ctx context.Context) error {
	pods, err := a.List(ctx, "/api/v1/pods")
	var missing []string
	for _, o := range pods {
		if o.Status.Phase == "Running" && o.Ready() {
			continue
		}
		restarts := 0
		for _, c := range o.Status.ContainerStatuses {
			restarts += c.RestartCount
		}
		missing = append(missing, fmt.Sprintf("%s/%s %s, %d restarts", o.Metadata.Namespace, o.Metadata.Name, o.Status.Phase, restarts))
	}
	if err == nil && (len(missing) > 0 || len(pods) == 0) {
		err = fmt.Errorf("%d pods, not ready: %s", len(pods), strings.Join(missing, ", "))
	}
	return err
}
