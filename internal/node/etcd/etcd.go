// Package etcd asks the members of a cluster's etcd about each other, and removes
// one, by etcd's JSON gateway (/v3/cluster/member): what a master needs before it
// may wipe its own member. It stores and reads no keys.
package etcd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
)

// Member is one member as its peers know it.
type Member struct {
	ID       string   `json:"ID"`
	Name     string   `json:"name"` // empty: it has never started
	PeerURLs []string `json:"peerURLs"`
	Learner  bool     `json:"isLearner"`
}

// Voter says whether the quorum counts on the member: one that has never started
// counts, too, unless it is a learner.
func (m Member) Voter() bool { return !m.Learner }

// At says whether the member's peers reach it at the address.
func (m Member) At(address string) bool { return slices.Contains(m.PeerURLs, PeerURL(address)) }

// Host is the address at which its peers reach it.
func (m Member) Host() string {
	if len(m.PeerURLs) == 0 {
		return ""
	}
	host, _, _ := net.SplitHostPort(strings.TrimPrefix(m.PeerURLs[0], "https://"))
	return host
}

// PeerURL is the URL that kubeadm gives a member at the address.
func PeerURL(address string) string { return "https://" + net.JoinHostPort(address, "2380") }

// Client asks through HTTP, which must bring a certificate of etcd's authority.
type Client struct{ HTTP *http.Client }

// Members asks the member at the address for all of them. The answer is that
// member's own: it comes without a quorum, too, but not from one that has started
// without: it serves nobody until it has seen one.
func (c Client) Members(ctx context.Context, address string) ([]Member, error) {
	var out struct{ Members []Member }
	err := c.post(ctx, address, "/v3/cluster/member/list", struct{}{}, &out)
	if err == nil && len(out.Members) == 0 {
		err = errors.New("it names no members")
	}
	return out.Members, err
}

// Remove asks the member at the address to remove another one, by its id. It
// fails without a quorum. One that is gone already is removed.
func (c Client) Remove(ctx context.Context, address, id string) error {
	err := c.post(ctx, address, "/v3/cluster/member/remove", map[string]string{"ID": id}, nil)
	if err != nil && strings.Contains(err.Error(), "member not found") {
		return nil
	}
	return err
}

func (c Client) post(ctx context.Context, address, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+net.JoinHostPort(address, "2379")+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := c.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // read only
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd at %s: %s: %s", address, res.Status, strings.TrimSpace(string(answer)))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}
