package source

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imgbuild/imgbuild/internal/store"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// TestMain lets this very program play kubeadm: it is an executable that is at
// hand, and the sources that run a kubeadm get a copy of it.
func TestMain(m *testing.M) {
	if len(os.Args) > 3 && strings.Join(os.Args[1:4], " ") == "config images list" {
		fmt.Fprintln(os.Stdout, strings.Join(fakeConstants.Images(strings.TrimPrefix(os.Args[5], "v")), "\n"))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var fakeConstants = Constants{Etcd: "3.7.0-0", CoreDNS: "v1.14.6", Pause: "3.10.2"}

// self is this program's bytes.
func self(t *testing.T) []byte {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// notes keeps what a stage wanted a person to see.
type notes struct {
	mu    sync.Mutex
	lines []string
	steps map[string]string // what was last heard of each
}

func (*notes) Stage(string) func() { return func() {} }
func (n *notes) Progress(step string, done, total int64, unit string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.steps[step] = fmt.Sprintf("%d of %d %s", done, total, unit)
}

func (n *notes) Note(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, fmt.Sprintf(format, args...))
}

func (n *notes) String() string { return strings.Join(n.lines, "\n") }

// options are a fresh store's, with the notes that it will take.
func options(t *testing.T) (Options, *notes) {
	t.Helper()
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	n := &notes{steps: map[string]string{}}
	return Options{Arch: "amd64", Kubernetes: "1.37.2", Store: s, Report: n}, n
}

// packed makes a container image whose root holds the files.
func packed(t *testing.T, files map[string]string) v1.Image {
	t.Helper()
	top := tree.New()
	for path, text := range files {
		if err := top.Put(path, tree.Node{Mode: 0o755, Content: tree.Bytes(text)}); err != nil {
			t.Fatal(err)
		}
	}
	img, err := newPacker(nil, "amd64").image(recipe{entry: []string{"/x"}}, []v1.Layer{newTreeLayer(top)})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func digestOf(t *testing.T, img v1.Image) string {
	t.Helper()
	h, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

func fails(t *testing.T, err error, say string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), say) {
		t.Errorf("error %v; want one with %q", err, say)
	}
}
