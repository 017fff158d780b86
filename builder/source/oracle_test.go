package source

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/internal/report"
	"github.com/imgbuild/imgbuild/internal/repro"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/internal/store"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// difference is one line of testdata/differences.yaml.
type difference struct {
	Path string `json:"path"` // as path.Match has it; "/..." at its end is all below, and a name alone before it is any folder of that name
	How  string `json:"how"`  // added, missing, changed, or reordered lines, as seen from mmdebstrap's tree
	Why  string `json:"why"`
	used bool
}

// beside are packages that operators like to add.
const beside = "cifs-utils,curl,htop,ipvsadm,jq,less,lldpd,lvm2,multipath-tools,nano,nfs-common,open-iscsi,open-vm-tools,prometheus-node-exporter," +
	"qemu-guest-agent,rsyslog,tcpdump,traceroute,vim,vim-tiny,xfsprogs,xz-utils"

// TestAgainstMmdebstrap lays out bases both ways, in this process and by mmdebstrap, and
// compares the trees entry by entry. Every difference must be explained, and every
// explanation needed.
func TestAgainstMmdebstrap(t *testing.T) {
	if testing.Short() {
		t.Skip("lays out bases: left out by -short")
	}
	if err := run.Need(DebianTools); err != nil {
		t.Skip(err)
	}
	text, err := os.ReadFile("testdata/differences.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var explained []*difference
	if err := yaml.UnmarshalStrict(text, &explained); err != nil {
		t.Fatal(err)
	}
	opt := Options{Arch: "amd64", Store: cache(t), Report: report.Discard{}}
	for name, in := range map[string]spec.Input{
		"master":              {Role: "master"},
		"worker, BIOS":        {Role: "worker", Sets: []string{"disk.bios=true"}},
		"worker, Cluster API": {Role: "worker", Sets: []string{"bootstrap=cluster-api"}},
		"master, all beside":  {Role: "master", Sets: []string{"base.kernel=generic", "ssh.enabled=true", "base.packages=" + beside}},
	} {
		t.Run(name, func(t *testing.T) {
			pins, err := DebianBase{Name: "debian-trixie", Suite: "trixie", Arch: opt.Arch, Packages: packagesOf(t, in)}.Resolve(t.Context(), opt)
			if err != nil {
				t.Fatal(err)
			}
			compareBases(t, opt, pins, explained)
		})
	}
	for _, d := range explained {
		if !d.used {
			t.Errorf("differences.yaml explains %s %s, which does not differ", d.How, d.Path)
		}
	}
	t.Logf("%d differences are explained", len(explained))
}

// cache is the one of everyday: what is in it already need not be fetched and laid out again.
func cache(t *testing.T) *store.Store {
	t.Helper()
	dir, err := store.DefaultDir()
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func compareBases(t *testing.T, opt Options, pins []lock.Pin, explained []*difference) {
	trees := map[string]*tree.Tree{}
	for _, by := range []string{ByMmdebstrap, ByImgbuild} {
		begin := repro.Now()
		opt.BaseBuilder = by
		layers, err := New(opt).Base(t.Context(), pins)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d layers in %v", by, len(layers), repro.Now().Sub(begin))
		trees[by] = tree.New()
		for _, l := range layers {
			if err := trees[by].ApplyTar(l); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, line := range compareTrees(t, trees[ByMmdebstrap], trees[ByImgbuild]) {
		how, p, _ := strings.Cut(line, " ")
		p, _, _ = strings.Cut(p, ": ")
		known := false
		for _, d := range explained {
			if d.How == how && d.matches(p) {
				d.used, known = true, true
			}
		}
		if !known {
			t.Error(line)
		}
	}
}

func (d *difference) matches(p string) bool {
	if above, ok := strings.CutSuffix(d.Path, "/..."); ok {
		for p != "." && p != "/" {
			if match, _ := path.Match(above, p); match || above == path.Base(p) {
				return true
			}
			p = path.Dir(p)
		}
		return false
	}
	match, _ := path.Match(d.Path, p)
	return match
}

// compareTrees lists what differs, as "added|missing|changed|reordered path: what".
func compareTrees(t *testing.T, want, got *tree.Tree) (out []string) {
	for _, p := range slices.Compact(slices.Sorted(slices.Values(append(want.Paths(), got.Paths()...)))) {
		a, inWant := want.Get(p)
		b, inGot := got.Get(p)
		switch {
		case !inWant:
			out = append(out, "added /"+p+": "+describe(t, b))
		case !inGot:
			out = append(out, "missing /"+p+": "+describe(t, a))
		default:
			if x, y := describe(t, a), describe(t, b); x != y && reordered(t, a, b) {
				out = append(out, "reordered /"+p+": "+x+" → "+y)
			} else if x != y {
				out = append(out, "changed /"+p+": "+x+" → "+y)
			}
		}
	}
	return out
}

// reordered says whether two files differ in the order of their lines and in nothing else.
func reordered(t *testing.T, a, b *tree.Node) bool {
	if a.Content == nil || b.Content == nil {
		return false
	}
	x, y := *a, *b
	x.Content, y.Content = nil, nil
	return describe(t, &x) == describe(t, &y) && slices.Equal(sortedLines(t, a), sortedLines(t, b))
}

func sortedLines(t *testing.T, n *tree.Node) []string {
	r, err := n.Content.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // read only
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(strings.Lines(string(data)))
}

func describe(t *testing.T, n *tree.Node) string {
	s := fmt.Sprintf("%v %d:%d", n.Mode, n.UID, n.GID)
	if n.Link != "" {
		s += " -> " + n.Link
	}
	if n.Rdev != 0 {
		s += fmt.Sprintf(" dev %d", n.Rdev)
	}
	for _, key := range slices.Sorted(maps.Keys(n.Xattrs)) {
		s += fmt.Sprintf(" %s=%x", key, n.Xattrs[key])
	}
	if n.Content != nil {
		r, err := n.Content.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close() //nolint:errcheck // read only
		sum := sha256.New()
		if _, err := io.Copy(sum, r); err != nil {
			t.Fatal(err)
		}
		s += fmt.Sprintf(" %d bytes %x", n.Content.Size(), sum.Sum(nil)[:6])
	}
	return s
}
