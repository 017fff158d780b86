package firstboot

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/internal/node/config"
)

// stored is containerd's store: path → text, or the link's target.
func stored(t *testing.T, root string) string {
	t.Helper()
	var out []string
	dir := filepath.Join(root, store)
	if err := filepath.Walk(dir, func(p string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		name, _ := filepath.Rel(dir, p)
		if target, err := os.Readlink(p); err == nil {
			out = append(out, name+" → "+target)
			return nil
		}
		text, err := os.ReadFile(p)
		out = append(out, fmt.Sprintf("%s: %s", name, strings.TrimSpace(string(text))))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "\n")
}

// TestStore makes containerd's store from what is on board, once, and anew where the
// records are others or it was left half made.
func TestStore(t *testing.T) {
	data, _ := sample(t, config.Worker)
	n := newNode(t, config.Worker, data)
	n.put(storeOnBoard+"/io.containerd.metadata.v1.bolt/meta.db", "records")
	n.put(storeOnBoard+"/"+layers+"/1/fs/bin/pause", "a program")
	n.put(storeOnBoard+"/"+layers+"/1/fs/fs", "a file that is called so")
	want := func(records string) string {
		id, err := n.agent(io.Discard).recordsID()
		if err != nil {
			t.Fatal(err)
		}
		return storeOf + ": " + id + "\nio.containerd.metadata.v1.bolt/meta.db: " + records + "\n" + layers + "/1/fs → " + storeOnBoard + "/" + layers + "/1/fs"
	}
	make := func() string {
		if err := n.agent(io.Discard).Images(t.Context()); err != nil {
			t.Fatal(err)
		}
		return stored(t, n.root)
	}
	if got := make(); got != want("records") {
		t.Fatalf("the first boot makes\n%s\nwant\n%s", got, want("records"))
	}
	n.put(store+"/io.containerd.metadata.v1.bolt/meta.db", "records, and a pulled image's")
	n.put(store+"/io.containerd.content.v1.content/pulled", "a blob")
	if got := make(); !strings.Contains(got, "pulled image's") || !strings.Contains(got, "a blob") {
		t.Errorf("the second boot leaves\n%s", got)
	}
	n.put(config.FactsFile, "{}")
	n.put(storeOnBoard+"/"+layers+"/1/fs/bin/pause", "never read here: verity does")
	if got := make(); !strings.Contains(got, "a blob") {
		t.Errorf("another image with the same records leaves\n%s", got)
	}
	n.put(storeOnBoard+"/io.containerd.metadata.v1.bolt/meta.db", "other records")
	if got := make(); got != want("other records") {
		t.Errorf("of another image's store it makes\n%s", got)
	}
	if err := os.Remove(filepath.Join(n.root, store, storeOf)); err != nil {
		t.Fatal(err)
	}
	n.put(store+"/io.containerd.metadata.v1.bolt/meta.db", "rec")
	if got := make(); got != want("other records") {
		t.Errorf("of a torn store it makes\n%s", got)
	}
}

// TestMissingImage names the image that the runtime does not know.
func TestMissingImage(t *testing.T) {
	data, _ := sample(t, config.Master)
	n := newNode(t, config.Master, data)
	facts := filepath.Join(n.root, config.FactsFile)
	text, err := os.ReadFile(facts)
	if err != nil {
		t.Fatal(err)
	}
	n.put(config.FactsFile, strings.Replace(string(text), "r.io/pause:1", "r.io/missing:2", 1))
	if _, err := n.boot(); err == nil || !strings.Contains(err.Error(), "containerd does not know the image r.io/missing:2") {
		t.Error(err)
	}
}
