package install

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

// machine is the programs of a machine, which note that they were called; mounting the
// ESP lets it be looked into afterwards.
type machine struct {
	calls []string
	fails string
}

func (m *machine) Run(_ context.Context, name string, args ...string) (string, error) {
	call := name + " " + strings.Join(args, " ")
	m.calls = append(m.calls, call)
	if m.fails != "" && strings.HasPrefix(call, m.fails) {
		return "no\nsuch luck", fmt.Errorf("exit status 32")
	}
	return "", nil
}

// image is a disk image of a size, and what a server has of it.
func image(t *testing.T, size int) (raw, packed []byte) {
	t.Helper()
	raw = make([]byte, size)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range raw[:size/2] {
		raw[i] = byte(r.Uint32())
	}
	var out bytes.Buffer
	z, err := zstd.NewWriter(&out)
	if err == nil {
		_, err = z.Write(raw)
	}
	if err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	return raw, out.Bytes()
}

// site is a machine with a disk that holds something old, and a server.
type site struct {
	Installer
	m     *machine
	said  *bytes.Buffer
	disk  string
	order Order
	heard []string
}

func newSite(t *testing.T, raw, packed []byte) *site {
	t.Helper()
	s := &site{m: &machine{}, said: &bytes.Buffer{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.heard = append(s.heard, r.Method+" "+r.URL.Path)
		if r.URL.Path == "/w.raw.zst" {
			_, _ = w.Write(packed)
		}
	}))
	t.Cleanup(server.Close)
	root := t.TempDir()
	s.Installer = Installer{Root: root, Runner: s.m, Console: s.said, Credential: filepath.Join(root, "credentials")}
	s.disk = filepath.Join(root, "dev/vda")
	s.order = Order{Disk: "/dev/vda", URL: server.URL + "/w.raw.zst", SHA256: fmt.Sprintf("%x", sha256.Sum256(raw)), Size: int64(len(raw)), Done: server.URL + "/done"}
	for file, text := range map[string]string{"dev/vda": strings.Repeat("old!", (len(raw)+4<<20)/4), "dev/vda1": "", "credentials/imgbuild.config": "the node's", "credentials/network.network.10-x": "[Match]", "credentials/imgbuild.var": "memory"} {
		file = filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *site) run(t *testing.T) error {
	t.Helper()
	text, err := json.Marshal(s.order)
	if err == nil {
		err = os.WriteFile(filepath.Join(s.Credential, OrderCredential), text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.Run(t.Context())
}

func TestInstall(t *testing.T) {
	raw, packed := image(t, 5<<20+512)
	s := newSite(t, raw, packed)
	if err := s.run(t); err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile(s.disk)
	if err != nil || !bytes.Equal(have[:len(raw)], raw) {
		t.Errorf("the disk is not the image: %v", err)
	}
	if !strings.HasPrefix(string(have[len(raw):]), "old!") {
		t.Error("it wrote behind the image")
	}
	esp := filepath.Join(s.Root, "run/imgbuild/esp")
	want := []string{"blockdev --rereadpt /dev/vda", "mount -t vfat -o nosuid,nodev,noexec /dev/vda1 " + esp, "umount " + esp, "systemctl reboot --no-block"}
	if d := cmp.Diff(want, s.m.calls); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"GET /w.raw.zst", "POST /done"}, s.heard); d != "" {
		t.Error(d)
	}
	for name, want := range map[string]string{"imgbuild.config": "the node's", "network.network.10-x": "[Match]", "imgbuild.install": "", "imgbuild.var": ""} {
		text, _ := os.ReadFile(filepath.Join(esp, "loader/credentials", name+".cred"))
		if string(text) != want {
			t.Errorf("%s: %q, want %q", name, text, want)
		}
	}
	if strings.Contains(s.said.String(), "the node's") {
		t.Error("it tells the machine's secret")
	}
}

// TestInstallFails wants a disk that boots nothing, and no reboot, wherever it goes wrong.
func TestInstallFails(t *testing.T) {
	raw, packed := image(t, 3<<20)
	for name, c := range map[string]struct {
		change  func(*site)
		want    string
		touched bool
	}{
		"no such disk":     {func(s *site) { s.order.Disk = "/dev/vdb" }, "this machine has no /dev/vdb", false},
		"a small disk":     {func(s *site) { _ = os.Truncate(s.disk, 1<<20) }, "it has 1048576 bytes, the image takes 3145728", false},
		"no server":        {func(s *site) { s.order.URL = "http://127.0.0.1:1/w.raw.zst" }, "connection refused", false},
		"no image":         {func(s *site) { s.order.URL = strings.Replace(s.order.URL, "w.raw", "x.raw", 1) }, "EOF", false},
		"another image":    {func(s *site) { s.order.SHA256 = strings.Repeat("0", 64) }, "want 0000", true},
		"a shorter image":  {func(s *site) { s.order.Size += 512 }, "the image ends after 3145728 of 3146240 bytes", true},
		"a longer image":   {func(s *site) { s.order.Size -= 512 }, "larger than the 3145216 bytes", true},
		"the ESP is wrong": {func(s *site) { s.m.fails = "mount" }, "mounting the EFI system partition: exit status 32: such luck", true},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "no such disk" && testing.Short() {
				t.Skip("waits for a disk for a minute: left out by -short")
			}
			s := newSite(t, raw, packed)
			c.change(s)
			if err := s.run(t); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			have, err := os.ReadFile(s.disk)
			if err != nil {
				t.Fatal(err)
			}
			if !c.touched && !strings.HasPrefix(string(have), "old!") {
				t.Error("the disk was written to")
			}
			if c.touched && strings.Trim(string(have[:tableSize]), "\x00") != "" {
				t.Error("what is half written has a partition table")
			}
			for _, call := range s.m.calls {
				if strings.HasPrefix(call, "systemctl reboot") {
					t.Error("it reboots")
				}
			}
		})
	}
}

func TestPartition(t *testing.T) {
	for disk, want := range map[string]string{"/dev/vda": "/dev/vda1", "/dev/nvme0n1": "/dev/nvme0n1p1", "/dev/mmcblk0": "/dev/mmcblk0p1", "/dev/disk/by-id/nvme-X_1": "/dev/disk/by-id/nvme-X_1-part1"} {
		if got := partition(disk, 1); got != want {
			t.Errorf("%s: %s, want %s", disk, got, want)
		}
	}
}
