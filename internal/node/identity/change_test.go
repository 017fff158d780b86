package identity

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

func saved(t *testing.T) (*Cluster, string) {
	t.Helper()
	c, err := New("demo", "10.0.0.10:6443", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "demo")
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	return c, dir
}

func tokens(t *testing.T, c *Cluster, dir string) map[string]string {
	t.Helper()
	found, err := c.Configs(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for name, n := range found {
		out[name] = n.Token.Reveal()
	}
	return out
}

// TestChangeIsAllOrNothing stops a change of all files at each of its moments; the
// next command finds all old or all new, and nothing beside.
func TestChangeIsAllOrNothing(t *testing.T) {
	files := []string{MasterFile, MasterJoinFile, WorkerFile}
	for _, when := range []string{"draft half written", "draft written", "change begun", "change half done", "change done"} {
		c, dir := saved(t)
		next := *c
		next.NewToken(2 * time.Hour)
		_, texts, err := c.configs(dir)
		if err != nil {
			t.Fatal(err)
		}
		draft, change := filepath.Join(dir, draftDir), filepath.Join(dir, changeDir)
		must(t, os.Mkdir(draft, 0o700))
		for _, name := range files {
			text, err := edit(texts[name], next.values())
			must(t, err)
			must(t, writeSynced(filepath.Join(draft, name), text))
			if when == "draft half written" {
				break
			}
		}
		want := c.Token.Reveal()
		if !strings.HasPrefix(when, "draft") {
			want = next.Token.Reveal()
			must(t, os.Rename(draft, change))
			if when != "change begun" {
				must(t, os.Rename(filepath.Join(change, MasterFile), filepath.Join(dir, MasterFile)))
			}
			if when == "change done" {
				for _, name := range files[1:] {
					must(t, os.Rename(filepath.Join(change, name), filepath.Join(dir, name)))
				}
			}
		}
		back, err := Load(dir)
		must(t, err)
		if got := tokens(t, back, dir); len(got) != len(files) || got[MasterFile] != want || got[MasterJoinFile] != want || got[WorkerFile] != want {
			t.Errorf("%s: the files disagree, or are neither old nor new", when)
		}
		back.NewToken(0)
		must(t, back.Update(dir, back))
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != len(files) {
			t.Errorf("%s: left behind: %v, %v", when, entries, err)
		}
	}
}

func TestRotateChangesAllThatSigns(t *testing.T) {
	c, dir := saved(t)
	file := filepath.Join(dir, WorkerFile)
	text, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, append(text, "hostname: w1\n"...), 0o600))
	kept, err := c.Rotate(dir)
	must(t, err)
	next, err := Load(dir)
	must(t, err)
	was, now := c.values(), next.values()
	for name := range was {
		if (was[name] == now[name]) != (name == "tokenTTL") {
			t.Errorf("%s: the same before and after: %v", name, was[name] == now[name])
		}
	}
	if old, err := Load(kept); err != nil || old.CACert != c.CACert || next.Endpoint != c.Endpoint {
		t.Errorf("%v", err)
	}
	found, err := next.Configs(dir)
	must(t, err)
	if found[WorkerFile] == nil || found[WorkerFile].Hostname != "w1" {
		t.Error("the worker's host name is gone")
	}
}

func TestTokenSecretIsWhatKubeadmReads(t *testing.T) {
	c, _ := saved(t)
	text, err := c.TokenSecret()
	must(t, err)
	id, secret, _ := strings.Cut(c.Token.Reveal(), ".")
	for _, want := range []string{`"name": "bootstrap-token-` + id + `"`, `"namespace": "kube-system"`, `"token-id": "` + id + `"`, `"token-secret": "` + secret + `"`,
		`"usage-bootstrap-authentication": "true"`, `"usage-bootstrap-signing": "true"`, `"expiration": "2`} {
		if !strings.Contains(text.Reveal(), want) {
			t.Errorf("no %s", want)
		}
	}
	c.TokenTTL = 0
	if text, err = c.TokenSecret(); err != nil || strings.Contains(text.Reveal(), "expiration") {
		t.Errorf("a token that never ends has an end (%v)", err)
	}
}

func TestOperatorCheck(t *testing.T) {
	good := Operator{User: "ann", Groups: []string{Admins, "a@b.c"}, TTL: time.Hour}
	must(t, good.Check())
	for want, o := range map[string]Operator{
		"user \"\"":                          {Groups: good.Groups, TTL: time.Hour},
		"user \"a\\nb\"":                     {User: "a\nb", Groups: good.Groups, TTL: time.Hour},
		"no group":                           {User: "ann", TTL: time.Hour},
		"nothing can take":                   {User: "ann", Groups: []string{"system:masters"}, TTL: time.Hour},
		"group \"" + strings.Repeat("x", 65): {User: "ann", Groups: []string{strings.Repeat("x", 65)}, TTL: time.Hour},
		"lifetime 0s":                        {User: "ann", Groups: good.Groups},
	} {
		if err := o.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	c, _ := saved(t)
	ca, err := config.ParseCert(c.CACert)
	must(t, err)
	if _, err := c.Kubeconfig(Operator{User: "ann", Groups: good.Groups, TTL: time.Until(ca.NotAfter) + time.Hour}); err == nil {
		t.Error("a certificate may outlive its CA")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
