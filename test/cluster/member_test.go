package cluster

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/kubeapi"
	"github.com/imgbuild/imgbuild/internal/node/config"
	"github.com/imgbuild/imgbuild/internal/node/firstboot"
	"github.com/imgbuild/imgbuild/internal/node/roster"
	"github.com/imgbuild/imgbuild/test/kit"
)

// status asks the cluster as `imgbuild status` does: both members are Ready and
// have noted their first boot, and the token of the identity is known.
func (s *suite) status(t *testing.T) {
	r := s.roster(t)
	if len(r.Nodes) != 2 || len(r.Tokens) != 1 || r.Tokens[0].Ends == nil || len(r.Hidden) != 0 {
		t.Errorf("%+v", r)
	}
	for _, n := range r.Nodes {
		if !n.Ready || n.FirstBoot == nil || n.FirstBoot.Phase != string(firstboot.Committed) || n.FirstBoot.Attempt < 1 || n.Role == config.Master != strings.HasPrefix(n.Name, "master") {
			t.Errorf("%+v, first boot %+v", n, n.FirstBoot)
		}
	}
}

func (s *suite) roster(t *testing.T) *roster.Roster {
	t.Helper()
	text, err := s.kit.Imgbuild(t.Context(), "cluster", "kubeconfig", filepath.Join(s.kit.Dir, "cluster"), "--ttl", "1h")
	must(t, err)
	api, err := kubeapi.New([]byte(text), kubeapi.Options{Dial: kit.DialMaster(s.c.Net)})
	must(t, err)
	r, err := roster.Read(t.Context(), api)
	must(t, err)
	return r
}
