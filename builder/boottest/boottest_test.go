package boottest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/internal/qemu"
)

// canned answers scripts without a machine.
type canned map[string]qemu.Result

var errGone = errors.New("gone")

func (c canned) Run(_ context.Context, script string) (qemu.Result, error) {
	if r, ok := c[script]; ok {
		return r, nil
	}
	return qemu.Result{}, errGone
}

func TestRunChecksRunsThemAll(t *testing.T) {
	guest := canned{"good": {Stdout: "fine\n"}, "bad": {Stdout: "a\n", Stderr: "b\n", Code: 3}}
	var got []string
	for _, r := range RunChecks(t.Context(), guest, []Check{{"one", "bad"}, {"two", "none"}, {"three", "good"}}) {
		got = append(got, strings.ReplaceAll(r.Name+" "+map[bool]string{true: "ok", false: "failed"}[r.OK]+" "+r.Output, "\n", "/"))
		if (r.Name == "two") != errors.Is(r.Err, errGone) {
			t.Errorf("%s: %v", r.Name, r.Err)
		}
	}
	if diff := cmp.Diff([]string{"one failed a/b/", "two failed ", "three ok fine/"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestSeedHoldsTheConfig(t *testing.T) {
	image := filepath.Join(t.TempDir(), "seed.img")
	const config = "kind: NodeConfig\n"
	if err := writeSeed(t.Context(), image, []byte(config)); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(image); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fsys, err := fat32.Read(file.New(f, true), seedSize, 0, 512)
	if err != nil {
		t.Fatal(err)
	}
	if label := strings.TrimSpace(fsys.Label()); label != "IMGBUILD" {
		t.Errorf("the label is %q", label)
	}
	in, err := fsys.OpenFile("node.yaml", os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(in); err != nil || string(got) != config {
		t.Errorf("%q, %v", got, err)
	}
}

func TestParseForward(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:6443=6443":           "127.0.0.1:6443 10.0.0.10:6443",
		"127.0.0.1:8080=10.0.0.11:80":   "127.0.0.1:8080 10.0.0.11:80",
		"[::1]:6443=6443":               "[::1]:6443 10.0.0.10:6443",
		"6443=6443":                     "want HOST:PORT=PORT",
		"127.0.0.1:6443":                "want HOST:PORT=PORT",
		"127.0.0.1:6443=":               "want HOST:PORT=PORT",
		"127.0.0.1:0=6443":              "want HOST:PORT=PORT",
		"0.0.0.0:6443=6443":             "from loopback addresses alone",
		"127.0.0.1:6443=127.0.0.1:none": "want HOST:PORT=PORT",
	} {
		from, to, err := ParseForward(text, "10.0.0.10")
		got := from + " " + to
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func TestJoinNet(t *testing.T) {
	dir := t.TempDir()
	socket, precious := filepath.Join(dir, "n"), filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := JoinNet(precious, nil); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Error(err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Fatalf("a file of the user's is gone: %v", err)
	}
	dead, err := net.Listen("unix", socket) // what a killed process leaves
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()
	first, err := JoinNet(socket, nil)
	if err != nil || first == nil {
		t.Fatalf("%v, %v", first, err)
	}
	defer first.Close()
	if !Served(socket) || Served(precious) {
		t.Error("only the socket is served")
	}
	if second, err := JoinNet(socket, nil); err != nil || second != nil {
		t.Errorf("the second one serves too: %v, %v", second, err)
	}
	if _, err := JoinNet(socket, map[string]string{"127.0.0.1:1": "10.0.0.10:1"}); err == nil || !strings.Contains(err.Error(), "forward ports there") {
		t.Error(err)
	}
}

func TestStartWithABadAddress(t *testing.T) {
	if _, err := Start(t.Context(), Node{Name: "a", IP: "ten"}, t.TempDir(), "", false); err == nil || !strings.Contains(err.Error(), "no IPv4 address") {
		t.Error(err)
	}
}
