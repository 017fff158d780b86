package serve

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/imgbuild/imgbuild/builder/stamp"
	"github.com/imgbuild/imgbuild/internal/node/identity"
)

// fakeImage is a netboot image of no kernel: zeros, and in the middle a slot with the
// credentials as JSON.
type fakeImage struct {
	role string
	size int64
}

const fakeSize, fakeSlot = 1 << 20, 256 << 10

func (f fakeImage) Role() string    { return f.role }
func (f fakeImage) Cmdline() string { return "roothash=00 console=ttyS0,115200n8" }
func (f fakeImage) Size() int64     { return f.size }
func (f fakeImage) Close() error    { return nil }

func (f fakeImage) Reader(s stamp.Stamp, more map[string][]byte) (io.ReadSeeker, error) {
	all := maps.Clone(more)
	all["imgbuild.node"] = s.Config
	for name, text := range s.Network {
		all[name] = text
	}
	slot, err := json.Marshal(all)
	if err != nil || len(slot) > fakeSlot {
		return nil, errors.Join(err, errors.New("it does not fit the slot"))
	}
	return io.NewSectionReader(filled(slot), 0, f.size), nil
}

// filled is zeros around a slot.
type filled []byte

func (f filled) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	if at := off - fakeSize/2; at >= 0 && at < int64(len(f)) {
		copy(b, f[at:])
	} else if at < 0 && -at < int64(len(b)) {
		copy(b[-at:], f)
	}
	return len(b), nil
}

// inSlot is what an image that came over the network carries.
func inSlot(t testing.TB, image []byte) map[string]string {
	t.Helper()
	if len(image) != fakeSize {
		t.Fatalf("an image of %d bytes, want %d", len(image), fakeSize)
	}
	var out map[string][]byte
	must(t, json.NewDecoder(bytes.NewReader(image[fakeSize/2:])).Decode(&out))
	text := map[string]string{}
	for name, v := range out {
		text[name] = string(v)
	}
	return text
}

const inventoryText = `apiVersion: imgbuild.dev/v1alpha1
kind: Inventory
machines:
- name: w1
  role: worker
  config: worker.yaml
  mac: ["52:54:00:00:00:01"]
  uuid: 00112233-4455-6677-8899-aabbccddeeff
  disk: /dev/vda
- name: w2
  role: worker
  config: worker.yaml
  mac: ["52:54:00:00:00:02"]
  boot: diskless
- name: w3
  role: worker
  config: worker.yaml
  mac: ["52:54:00:00:00:03"]
  boot: local
- name: f1
  mac: ["52:54:00:00:00:04"]
  userData: f1.ign
- name: w5
  role: worker
  config: worker.yaml
  serial: SN 5
  disk: /dev/vdb
`

const withDefault = "default:\n  role: worker\n  config: worker.yaml\n  boot: diskless\n"

// rig is a server with what it told.
type rig struct {
	*Server
	dir    string
	config string // the node config, secret
	disk   []byte // of a worker
	mu     sync.Mutex
	events []Event
}

// outputs makes a folder as a build leaves it, with an inventory and what that names.
func outputs(t testing.TB, inventory string) *rig {
	t.Helper()
	r := &rig{dir: t.TempDir(), disk: plainDisk}
	text, err := workerConfig()
	must(t, err)
	r.config = string(text)
	files := map[string][]byte{"worker.netboot.efi": make([]byte, fakeSize), "worker.raw.zst": packedDisk(), "worker.ign": []byte("a config with a token"),
		"machines.yaml": []byte(inventory), "worker.yaml": text, "f1.ign": []byte(`{"ignition":{"version":"3.4.0"},"canary":"f1-secret"}`), "ipxe.efi": []byte("MZ ipxe"), "undionly.kpxe": []byte("kpxe")}
	outputs := []map[string]any{}
	for name, format := range map[string]string{"worker.netboot.efi": formatNetboot, "worker.raw.zst": formatDisk, "worker.ign": "ignition"} {
		outputs = append(outputs, map[string]any{"format": format, "file": name, "size": len(files[name]), "sha256": fmt.Sprintf("%x", sha256.Sum256(files[name]))})
	}
	files["worker.manifest.json"], err = json.Marshal(map[string]any{"role": "worker", "arch": "amd64", "outputs": outputs, "spec": map[string]any{}})
	must(t, err)
	for name, data := range files {
		must(t, os.WriteFile(filepath.Join(r.dir, name), data, 0o600))
	}
	return r
}

// start makes the server; change changes its options.
func start(t testing.TB, inventory string, change func(*Options)) *rig {
	t.Helper()
	r := outputs(t, inventory)
	o := r.options()
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	must(t, err)
	t.Cleanup(s.Close)
	r.Server, r.events = s, nil
	return r
}

// workerConfig is a worker's node config, of one cluster: its keys take time to make.
var workerConfig = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	c, err := identity.New("demo", "10.0.0.10:6443", time.Hour)
	if err != nil {
		return nil, err
	}
	if err := c.Save(filepath.Join(dir, "demo")); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(dir, "demo", identity.WorkerFile))
})

var plainDisk = bytes.Repeat([]byte("the worker's disk "), 20000)

var packedDisk = sync.OnceValue(func() []byte {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err)
	}
	return z.EncodeAll(plainDisk, nil)
})

func (r *rig) options() Options {
	return Options{Dir: r.dir, Inventory: filepath.Join(r.dir, "machines.yaml"), Address: netip.MustParsePrefix("10.0.0.5/24"), HTTPPort: 8080, DHCP: DHCPProxy,
		Open: func(string) (Image, error) { return fakeImage{"worker", fakeSize}, nil },
		Tell: func(e Event) { r.mu.Lock(); defer r.mu.Unlock(); r.events = append(r.events, e) }}
}

// ends waits until a server has done what it does after the last byte that a client gets.
func ends(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in the end: %s", what)
		}
	}
}

// said is all that was told, in lines and as JSON.
func (r *rig) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, e := range r.events {
		text, _ := json.Marshal(e)
		fmt.Fprintf(&b, "%s\n%s\n", e, text)
	}
	return b.String()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestBadFolder has every mistake in what is to be served told before anything is.
func TestBadFolder(t *testing.T) {
	for name, c := range map[string]struct {
		change func(r *rig, o *Options)
		want   string
	}{
		"no folder":            {func(_ *rig, o *Options) { o.Dir += "/none" }, "no such file"},
		"no netboot image":     {func(r *rig, o *Options) { os.Remove(r.dir + "/worker.manifest.json") }, "holds no netboot image for amd64: `imgbuild worker -o "},
		"of another processor": {func(r *rig, o *Options) { r.edit("worker.manifest.json", `"arch":"amd64"`, `"arch":"arm64"`) }, "holds no netboot image for amd64"},
		"image is gone":        {func(r *rig, o *Options) { os.Remove(r.dir + "/worker.netboot.efi") }, "its manifest is there, and it is not"},
		"image is short":       {func(r *rig, o *Options) { os.Truncate(r.dir+"/worker.netboot.efi", 7) }, "no file of 1048576 bytes, as its manifest says"},
		"disk is damaged":      {func(r *rig, o *Options) { r.damage("worker.raw.zst") }, "worker.raw.zst: its sha256 is "},
		"disk leads out":       {func(r *rig, o *Options) { r.link("worker.raw.zst", "/etc/passwd") }, "no file of"},
		"manifest leads out":   {func(r *rig, o *Options) { r.link("worker.manifest.json", "/etc/passwd") }, "escapes"},
		"manifest climbs":      {func(r *rig, o *Options) { r.edit("worker.manifest.json", "worker.raw.zst", "../worker.raw.zst") }, "is no file of the folder"},
		"manifest is torn":     {func(r *rig, o *Options) { os.Truncate(r.dir+"/worker.manifest.json", 9) }, "worker.manifest.json: unexpected end"},
		"another role":         {func(r *rig, o *Options) { r.edit("worker.manifest.json", `"role":"worker"`, `"role":"master"`) }, "it is a worker's image, its manifest is a master's"},
		"no raw.zst":           {func(r *rig, o *Options) { r.edit("worker.manifest.json", `"raw.zst"`, `"raw.gz"`) }, "line 4: boot: there is no raw.zst of a worker"},
		"no inventory":         {func(r *rig, o *Options) { o.Inventory += "x" }, "no such file"},
		"role without image":   {func(r *rig, o *Options) { r.edit("machines.yaml", "role: worker", "role: master") }, "line 4: role: "},
		"no disk":              {func(r *rig, o *Options) { r.edit("machines.yaml", "  disk: /dev/vda\n", "") }, "machines.yaml: line 4: disk: say which disk"},
		"no config":            {func(r *rig, o *Options) { r.edit("machines.yaml", "  config: worker.yaml\n", "") }, "line 4: config: it has none"},
		"config is not there":  {func(r *rig, o *Options) { r.edit("machines.yaml", "config: worker.yaml", "config: none.yaml") }, "line 4: reading the node config"},
		"config is none":       {func(r *rig, o *Options) { r.edit("machines.yaml", "config: worker.yaml", "config: f1.ign") }, "f1.ign: node config"},
		"user data is empty":   {func(r *rig, o *Options) { os.Truncate(r.dir+"/f1.ign", 0) }, "want a file of 1 to"},
		"iPXE is not there":    {func(r *rig, o *Options) { o.IPXE = r.dir + "/none.efi" }, "reading iPXE"},
		"iPXE is none":         {func(r *rig, o *Options) { o.IPXE = r.dir + "/undionly.kpxe" }, "it is no iPXE"},
		"range elsewhere": {func(_ *rig, o *Options) {
			o.DHCP, o.First, o.Last = DHCPFull, netip.MustParseAddr("10.0.1.1"), netip.MustParseAddr("10.0.1.9")
		}, "--range 10.0.1.1-10.0.1.9: it is not in 10.0.0.0/24"},
	} {
		t.Run(name, func(t *testing.T) {
			r := outputs(t, inventoryText)
			o := r.options()
			c.change(r, &o)
			_, err := New(o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "f1-secret") {
				t.Error("the error holds what was in the file")
			}
		})
	}
}

func (r *rig) edit(name, old, text string) {
	file := filepath.Join(r.dir, name)
	data, _ := os.ReadFile(file)
	os.WriteFile(file, bytes.Replace(data, []byte(old), []byte(text), 1), 0o600)
}

func (r *rig) damage(name string) {
	file := filepath.Join(r.dir, name)
	data, _ := os.ReadFile(file)
	data[len(data)/2] ^= 1
	os.WriteFile(file, data, 0o600)
}

func (r *rig) link(name, to string) {
	os.Remove(filepath.Join(r.dir, name))
	os.Symlink(to, filepath.Join(r.dir, name))
}

// TestFind knows machines by any of what they say, and none by what two say.
func TestFind(t *testing.T) {
	r := start(t, inventoryText, nil)
	for name, c := range map[string]struct {
		who  who
		want string
	}{
		"MAC":             {who{mac: "52:54:00:00:00:01"}, "w1"},
		"UUID":            {who{mac: "52:54:00:ff:ff:ff", uuids: []string{"33221100-5544-7766-8899-aabbccddeeff", "00112233-4455-6677-8899-aabbccddeeff"}}, "w1"},
		"serial":          {who{serial: "SN 5"}, "w5"},
		"MAC and serial":  {who{mac: "52:54:00:00:00:02", serial: "SN 5"}, "by one of MAC, UUID and serial number it is w2, by another w5"},
		"nobody":          {who{mac: "52:54:00:ff:ff:ff"}, errUnknown.Error()},
		"nothing":         {who{}, errUnknown.Error()},
		"name as serial":  {who{serial: "w1"}, errUnknown.Error()},
		"serial of a MAC": {who{serial: "52:54:00:00:00:01"}, errUnknown.Error()},
	} {
		m, err := r.machines.find(c.who)
		got := fmt.Sprint(err)
		if err == nil {
			got = m.name
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	d := start(t, inventoryText+withDefault, nil)
	m, err := d.machines.find(who{mac: "52:54:00:ff:ff:ff"})
	if err != nil || m.name != "mac 52:54:00:ff:ff:ff" || d.machines.boot(m) != "diskless" {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := d.machines.find(who{serial: "X"}); err == nil {
		t.Error("a machine without a MAC address got the default")
	}
	if got := bothOrders([]byte{0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}); !slices.Contains(got, "00112233-4455-6677-8899-aabbccddeeff") {
		t.Errorf("%v", got)
	}
}
