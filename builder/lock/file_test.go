package lock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/internal/fault"
)

var (
	base    = Request{Kind: KindBase, Name: "trixie", Source: "debian", Args: []string{"systemd", "udev"}}
	kubeadm = Request{Kind: KindPart, Name: "kubeadm", Version: "1.37.2", Source: "release", Args: []string{}}
	pause   = Request{Kind: KindImage, Name: "pause", Version: "3.10.2", Source: "auto"}
)

// counter resolves a base to two packages and all else to one pin, and counts.
type counter struct{ calls []string }

var _ Resolver = (*counter)(nil)

func (c *counter) Resolve(_ context.Context, r Request) ([]Pin, error) {
	c.calls = append(c.calls, r.Name)
	if r.Name == "broken" {
		return nil, errors.New("no such thing")
	}
	pin := func(name string) Pin {
		return Pin{Kind: r.Kind, Name: name, Version: r.Version, Arch: "amd64", Source: r.Source, Digest: fmt.Sprintf("sha256:%064d", len(c.calls))}
	}
	if r.Kind == KindBase {
		return []Pin{pin("udev"), pin("systemd")}, nil
	}
	return []Pin{pin(r.Name)}, nil
}

func resolved(t *testing.T, role string, asked ...Request) (*File, *counter) {
	t.Helper()
	f, c := &File{}, &counter{}
	if err := f.Resolve(t.Context(), role, asked, none, c); err != nil {
		t.Fatal(err)
	}
	return f, c
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"empty":          {"", "EOF"},
		"cut":            {`{"format":1,"nodes":{"master":`, "unexpected EOF"},
		"not JSON":       {"format: 1", "invalid character"},
		"unknown field":  {`{"format":1,"nodez":{}}`, `unknown field "nodez"`},
		"wrong type":     {`{"format":"1"}`, "cannot unmarshal"},
		"no format":      {`{}`, "format 0, this imgbuild reads 1"},
		"newer format":   {`{"format":2,"nodes":{}}`, "format 2, this imgbuild reads 1"},
		"merge left two": {`{"format":1,"nodes":{}}{"format":1,"nodes":{}}`, "something follows"},
		"no digest":      {`{"format":1,"nodes":{"master":{"asked":[],"pins":[{"kind":"part","name":"kubelet"}]}}}`, "pins part kubelet of master without a digest"},
		"option as name": {`{"format":1,"nodes":{"master":{"pins":[{"kind":"base","source":"debian","name":"--setup-hook=id","digest":"sha256:` + strings.Repeat("0", 64) + `"}]}}}`, `pins "--setup-hook=id" of master, which is no Debian package's name`},
		"merge marker":   {"{\"format\":1,\"nodes\":{}}\n>>>>>>> theirs\n", "something follows"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "imgbuild lock") {
				t.Errorf("error %v, want one with %q and the way out", err, c.want)
			}
			if kind := fault.KindOf(err); kind != fault.Lock {
				t.Errorf("kind %s", kind)
			}
		})
	}
}

func TestBytesAreStable(t *testing.T) {
	f, _ := resolved(t, "worker", base, kubeadm)
	if err := f.Resolve(t.Context(), "master", []Request{pause, base, kubeadm}, none, &counter{}); err != nil {
		t.Fatal(err)
	}
	first := f.Bytes()
	again, err := Parse(first)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(first), string(again.Bytes())); d != "" {
		t.Errorf("writing, reading and writing changes the lock: %s", d)
	}
	if !bytes.HasSuffix(first, []byte("}\n")) || bytes.Count(first, []byte("\n")) < 40 {
		t.Errorf("want one value a line:\n%s", first)
	}
}

func TestPinsAreSorted(t *testing.T) {
	asked := []Request{pause, kubeadm, base}
	f, _ := resolved(t, "master", asked...)
	var got []string
	for _, p := range f.Nodes["master"].Pins {
		got = append(got, fmt.Sprintf("%s %s %s", p.Kind, p.Request, p.Name))
	}
	want := []string{"base trixie systemd", "base trixie udev", "image pause pause", "part kubeadm kubeadm"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	slices.Reverse(asked)
	other, _ := resolved(t, "master", asked...)
	for i, p := range other.Nodes["master"].Pins {
		if p.Name != f.Nodes["master"].Pins[i].Name {
			t.Errorf("pin %d is %s when asked in another order", i, p.Name)
		}
	}
}

// Nodes of two architectures share nothing, and what moves for one stays for the other.
func TestArchitectures(t *testing.T) {
	f, _ := resolved(t, Name("worker", "amd64"), base, kubeadm)
	for _, c := range []struct {
		name  string
		calls int
	}{{"master", 0}, {"worker-arm64", 2}, {Name("master", "arm64"), 0}} {
		var n counter
		if err := f.Resolve(t.Context(), c.name, []Request{base, kubeadm}, none, &n); err != nil || len(n.calls) != c.calls {
			t.Errorf("%s: %v is resolved, want %d, %v", c.name, n.calls, c.calls, err)
		}
	}
	all := func(Request) bool { return true }
	before, moved := f.Nodes["worker"].Pins, &counter{calls: []string{"so that digests differ", "", ""}}
	if err := f.Resolve(t.Context(), "worker-arm64", []Request{base, kubeadm}, all, moved); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, f.Nodes["worker"].Pins); d != "" {
		t.Errorf("the other architecture's pins moved: %s", d)
	}
	if d := cmp.Diff(f.Nodes["worker-arm64"].Pins, f.Nodes["master-arm64"].Pins); d != "" {
		t.Errorf("the other role's pins stayed: %s", d)
	}
}

func TestStale(t *testing.T) {
	f, _ := resolved(t, "master", base, kubeadm, pause)
	change := func(r Request, with func(*Request)) Request {
		with(&r)
		return r
	}
	newer := change(kubeadm, func(r *Request) { r.Version = "1.36.3" })
	for name, c := range map[string]struct {
		role  string
		asked []Request
		want  []string
	}{
		"same":         {"master", []Request{pause, kubeadm, base}, nil},
		"no such role": {"worker", []Request{base}, []string{"nothing is pinned for worker"}},
		"version":      {"master", []Request{base, newer, pause}, []string{`part kubeadm: pinned for version "1.37.2", asked for "1.36.3"`}},
		"source":       {"master", []Request{base, change(kubeadm, func(r *Request) { r.Source = "dir" }), pause}, []string{`part kubeadm: pinned from source "release", asked for "dir"`}},
		"packages":     {"master", []Request{change(base, func(r *Request) { r.Args = []string{"systemd"} }), kubeadm, pause}, []string{"base trixie: asked with other details than pinned"}},
		"more":         {"master", []Request{base, kubeadm, pause, {Kind: KindPart, Name: "crictl", Source: "auto"}}, []string{"part crictl is not pinned"}},
		"less":         {"master", []Request{base, pause}, []string{"part kubeadm is pinned but no longer asked for"}},
		"other kind":   {"master", []Request{base, change(kubeadm, func(r *Request) { r.Kind = KindImage }), pause}, []string{"image kubeadm is not pinned", "part kubeadm is pinned but no longer asked for"}},
		"all, sorted":  {"master", []Request{newer, {Kind: KindPart, Name: "crictl"}}, []string{"base trixie is pinned but no longer asked for", "image pause is pinned but no longer asked for", "part crictl is not pinned", `part kubeadm: pinned for version "1.37.2", asked for "1.36.3"`}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, lock := range []*File{f, reread(t, f)} {
				if d := cmp.Diff(c.want, lock.Stale(c.role, c.asked)); d != "" {
					t.Error(d)
				}
			}
		})
	}
}

// TestDamagedEntry: what has been taken out of a lock, doubled or edited is noticed
// and named, and pinning anew does not believe the rest of it.
func TestDamagedEntry(t *testing.T) {
	asked := []Request{base, kubeadm, pause}
	isNamed := func(name string) func(Pin) bool { return func(p Pin) bool { return p.Name == name } }
	const edited = "its pins are not those that imgbuild wrote (edited, or merged by hand)"
	for name, c := range map[string]struct {
		damage func([]Pin) []Pin
		want   string
	}{
		"a part's pin":             {func(p []Pin) []Pin { return slices.DeleteFunc(p, isNamed("kubeadm")) }, "part kubeadm has lost its pin"},
		"an image's pin":           {func(p []Pin) []Pin { return slices.DeleteFunc(p, isNamed("pause")) }, "image pause has lost its pin"},
		"one package of the base":  {func(p []Pin) []Pin { return slices.DeleteFunc(p, isNamed("udev")) }, edited},
		"one pin twice":            {func(p []Pin) []Pin { return append(p, p[0]) }, edited},
		"a version that is untrue": {func(p []Pin) []Pin { p[len(p)-1].Version = "9"; return p }, edited},
		"another order":            {func(p []Pin) []Pin { slices.Reverse(p); return p }, edited},
		"a pin that nobody asked":  {func(p []Pin) []Pin { return append(p, Pin{Kind: KindPart, Request: "x", Name: "x"}) }, edited},
	} {
		t.Run(name, func(t *testing.T) {
			f, calls := resolved(t, "master", asked...)
			whole := f.Nodes["master"]
			entry := whole
			entry.Pins = c.damage(slices.Clone(entry.Pins))
			f.Nodes["master"] = entry
			if d := cmp.Diff([]string{c.want}, f.Stale("master", asked)); d != "" {
				t.Error(d)
			}
			f.Nodes["worker"] = NewEntry([]Request{base}, slices.Clone(whole.Pins[:2]))
			calls.calls = nil
			if err := f.Resolve(t.Context(), "master", asked, none, calls); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff([]string{"kubeadm", "pause"}, calls.calls); d != "" { // the base is the worker's, which is whole
				t.Errorf("pinned anew: %s", d)
			}
			if why := f.Stale("master", asked); why != nil {
				t.Errorf("pinned anew, it is still %v", why)
			}
		})
	}
}

func reread(t *testing.T, f *File) *File {
	t.Helper()
	again, err := Parse(f.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func TestStaleError(t *testing.T) {
	err := StaleError("imgbuild.lock", "master", []string{"a", "b", "c", "d", "e"})
	if want := "imgbuild.lock is stale for master: a; b; c; and 2 more; run `imgbuild lock master` with the same flags to pin anew"; err.Error() != want || fault.KindOf(err) != fault.Lock {
		t.Errorf("%v", err)
	}
	if err := StaleError("l", "worker", []string{"a", "b"}); !strings.Contains(err.Error(), "worker: a; b; run") {
		t.Errorf("%v", err)
	}
}

// TestBorrow: what one role has pinned is not asked for again, even after the
// lock was written and read, which turns empty Args into none.
func TestBorrow(t *testing.T) {
	f, _ := resolved(t, "master", base, kubeadm)
	for name, lock := range map[string]*File{"in memory": f, "read": reread(t, f)} {
		t.Run(name, func(t *testing.T) {
			before, c := lock.Nodes["master"], &counter{}
			if err := lock.Resolve(t.Context(), "worker", []Request{kubeadm, base, pause}, none, c); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff([]string{"pause"}, c.calls); d != "" {
				t.Errorf("resolved anew: %s", d)
			}
			for _, want := range before.Pins {
				if !slices.ContainsFunc(lock.Nodes["worker"].Pins, func(p Pin) bool { return cmp.Equal(p, want) }) {
					t.Errorf("the worker lacks the master's pin %v", want)
				}
			}
			if d := cmp.Diff(before, lock.Nodes["master"]); d != "" {
				t.Errorf("the master's entry changed: %s", d)
			}
		})
	}
}

func TestNotBorrowed(t *testing.T) {
	for name, req := range map[string]Request{
		"other version":  {Kind: KindPart, Name: "kubeadm", Version: "1.36.3", Source: "release"},
		"other source":   {Kind: KindPart, Name: "kubeadm", Version: "1.37.2", Source: "dir"},
		"other packages": {Kind: KindBase, Name: "trixie", Source: "debian", Args: []string{"systemd"}},
	} {
		t.Run(name, func(t *testing.T) {
			f, c := resolved(t, "master", base, kubeadm)
			if err := f.Resolve(t.Context(), "worker", []Request{req}, none, c); err != nil {
				t.Fatal(err)
			}
			if len(c.calls) != 3 {
				t.Errorf("calls: %v", c.calls)
			}
		})
	}
}

// TestWhatMovesMovesForAll: without a word own pins stay; what moves is pinned
// anew, in every role that asks it.
func TestWhatMovesMovesForAll(t *testing.T) {
	f, c := resolved(t, "master", base, kubeadm)
	if err := f.Resolve(t.Context(), "worker", []Request{kubeadm, pause}, none, c); err != nil || len(c.calls) != 3 {
		t.Fatalf("calls: %v, %v", c.calls, err)
	}
	before := reread(t, f)
	moves, err := Moves([]string{"kubeadm"}, []Request{base, kubeadm})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Resolve(t.Context(), "master", []Request{base, kubeadm}, moves, c); err != nil || len(c.calls) != 4 {
		t.Fatalf("calls: %v, %v", c.calls, err)
	}
	for _, role := range []string{"master", "worker"} {
		got := Changes(before.Nodes[role].Pins, f.Nodes[role].Pins)
		if len(got) != 1 || got[0].Name != "kubeadm" || !strings.HasPrefix(got[0].String(), "~ part kubeadm 1.37.2 sha256:") {
			t.Errorf("%s: %v", role, got)
		}
	}
	if _, err := Moves([]string{"kubeadn"}, []Request{base, kubeadm}); err == nil || !strings.Contains(err.Error(), "there are kubeadm, trixie and all") {
		t.Error(err)
	}
}

func TestChanges(t *testing.T) {
	pin := func(kind Kind, name, version, digest string) Pin {
		return Pin{Kind: kind, Name: name, Request: name, Version: version, Digest: digest}
	}
	before := []Pin{pin(KindBase, "libc6", "2.41-12", "a"), pin(KindBase, "gone", "1", "b"), pin(KindPart, "kubelet", "1.37.2", "c")}
	after := []Pin{pin(KindBase, "libc6", "2.41-13", "d"), pin(KindBase, "new", "1", "e"), pin(KindPart, "kubelet", "1.37.2", "f")}
	var got []string
	for _, c := range Changes(before, after) {
		got = append(got, c.String())
	}
	want := []string{"- base gone 1", "~ base libc6 2.41-12 -> 2.41-13", "+ base new 1", "~ part kubelet 1.37.2 c -> 1.37.2 f"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// none moves nothing.
func none(Request) bool { return false }

func TestResolveFails(t *testing.T) {
	f, c := resolved(t, "master", kubeadm)
	before := string(f.Bytes())
	err := f.Resolve(t.Context(), "master", []Request{pause, {Kind: KindPart, Name: "broken"}}, none, c)
	if err == nil || err.Error() != "resolving part broken: no such thing" {
		t.Errorf("%v", err)
	}
	if string(f.Bytes()) != before {
		t.Error("a failed resolution changed the lock")
	}
}
