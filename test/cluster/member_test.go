package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/internal/kubeapi"
	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/node/firstboot"
	"github.com/imgbuild/imgbuild/internal/node/roster"
)

// status asks the cluster as `imgbuild status` does: both members are Ready and
// have noted their first boot, and the token of the identity is known.
func (s *suite) status(t *testing.T) {
	r := s.roster(t)
	if len(r.Nodes) != 2 || len(r.Tokens) != 1 || r.Tokens[0].Ends == nil || len(r.Hidden) != 0 {
		t.Errorf("%+v", r)
	}
	for _, n := range r.Nodes {
		if !n.Ready || n.FirstBoot == nil || n.FirstBoot.Phase != string(firstboot.Committed) || n.FirstBoot.Attempt != 1 || n.Role == config.Master != strings.HasPrefix(n.Name, "master") {
			t.Errorf("%+v, first boot %+v", n, n.FirstBoot)
		}
	}
}

func (s *suite) roster(t *testing.T) *roster.Roster {
	t.Helper()
	text, err := s.kit.Imgbuild(t.Context(), "cluster", "kubeconfig", filepath.Join(s.kit.Dir, "cluster"), "--ttl", "1h")
	must(t, err)
	api, err := kubeapi.New([]byte(text), kubeapi.Options{Dial: func(ctx context.Context, _, addr string) (net.Conn, error) { return s.c.Net.Dial(ctx, addr) }})
	must(t, err)
	r, err := roster.Read(t.Context(), api)
	must(t, err)
	return r
}

// twin starts a copy of the worker's disk as another machine: it says whose disk
// that is and starts no kubelet, so the node stays away until the worker itself
// is back.
func (s *suite) twin(t *testing.T) {
	ctx := limited(t, limit)
	name := sh(t, s.c.Worker, "hostname")
	must(t, s.c.Worker.PowerOff(limited(t, 10*time.Minute)))
	m, err := s.c.Twin(ctx)
	must(t, err)
	text, err := m.Until(ctx, 3*time.Second, "cat /run/imgbuild/status.json")
	must(t, err)
	var said firstboot.Status
	must(t, json.Unmarshal([]byte(text), &said))
	if said.Step != "machine" || said.Phase != firstboot.Committed || !strings.Contains(said.Cause, "belongs to another machine: it is "+name) {
		t.Errorf("the copy says %s", text)
	}
	away := func(ctx context.Context) error {
		for _, n := range s.roster(t).Nodes {
			if n.Name == name && n.Ready {
				return errors.New(name + " is still Ready")
			}
		}
		return nil
	}
	if err := s.c.API.Until(limited(t, 8*time.Minute), away); err != nil {
		t.Error(err)
	}
	sh(t, m, "! systemctl is-active kubelet && test ! -e /run/imgbuild/kubelet-may-start && ! imgbuild-firstboot status")
	must(t, m.Kill())
	must(t, s.c.StartWorker(context.WithoutCancel(ctx))) // it outlives this test
	must(t, s.c.API.Until(ctx, s.c.NodesReady(2)))
}
