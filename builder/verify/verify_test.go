package verify_test

import (
	"encoding/base64"
	"encoding/binary"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/builder/output"
	"github.com/imgbuild/imgbuild/builder/verify"
	"github.com/imgbuild/imgbuild/internal/tree"
)

// findings reads an image that must be readable, as "check path".
func findings(t testing.TB, file string) []string {
	t.Helper()
	r, err := verify.Image(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range r.Findings {
		out = append(out, strings.TrimSpace(f.Check+" "+f.Path))
	}
	return out
}

// to converts a raw disk, with the writers that builds use.
func to(t testing.TB, raw, format string, compress bool) string {
	t.Helper()
	f, err := output.Find(format)
	if err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(t.TempDir(), "disk."+format)
	if err := f.Write(t.Context(), &output.Made{Disk: raw, ID: "0123456789abcdef", Role: "worker", Arch: "amd64", Version: "1.37.2"}, dst, compress); err != nil {
		t.Fatal(err)
	}
	return dst
}

func TestGoodImage(t *testing.T) {
	d := build(t, node(t), "quiet")
	files := map[string]string{"raw": d.Path, "qcow2, compressed": to(t, d.Path, "qcow2", true)}
	for _, f := range output.All() {
		if f.Needs == output.Disk && !f.Last {
			files[f.Name] = to(t, d.Path, f.Name, false)
		}
	}
	for name, file := range files {
		t.Run(name, func(t *testing.T) {
			r, err := verify.Image(t.Context(), file)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Findings) > 0 {
				t.Errorf("findings: %v", r.Findings)
			}
			var parts []string
			for _, p := range r.Partitions {
				parts = append(parts, p.Name)
			}
			got := []string{r.Format, r.UKI, r.Kernel, r.Cmdline, r.RootHash, r.OS["NAME"], string(r.Node), strings.Join(parts, " ")}
			want := []string{strings.Fields(strings.ReplaceAll(name, ",", ""))[0], d.UKI, "6.12.1", "roothash=" + d.RootHash + " systemd.swap=0 quiet", d.RootHash, "Debian GNU/Linux", facts, "imgbuild-esp imgbuild-root imgbuild-verity"}
			if diff := cmp.Diff(want, got); diff != "" || r.Size != d.Size && name != "gce" || name == "gce" && r.Size != 1<<30 {
				t.Error(diff, r.Size, d.Size)
			}
		})
	}
}

// TestHygiene: each thing that must not be in an image is found, and nothing else.
func TestHygiene(t *testing.T) {
	key := "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIO\n-----END EC PRIVATE KEY-----\n"
	add := func(p, text string, mode fs.FileMode) func(testing.TB, *tree.Tree) {
		return func(t testing.TB, tr *tree.Tree) { put(t, tr, p, text, mode) }
	}
	for name, c := range map[string]struct {
		change func(testing.TB, *tree.Tree)
		want   string
	}{
		"set-uid program":      {add("usr/bin/evil", "x", fs.ModeSetuid|0o755), "setuid usr/bin/evil"},
		"set-gid program":      {add("usr/bin/evil", "x", fs.ModeSetgid|0o755), "setuid usr/bin/evil"},
		"host name":            {add("etc/hostname", "builder\n", 0o644), "identity etc/hostname"},
		"machine id":           {add("etc/machine-id", "0123456789abcdef0123456789abcdef\n", 0o444), "identity etc/machine-id"},
		"empty machine id":     {add("etc/machine-id", "", 0o444), "identity etc/machine-id"},
		"no machine id":        {func(_ testing.TB, tr *tree.Tree) { tr.Remove("etc/machine-id") }, "identity etc/machine-id"},
		"SSH host key":         {add("etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519 AAAA", 0o644), "identity etc/ssh/ssh_host_ed25519_key.pub"},
		"password":             {add("etc/shadow", "root:$y$j9T$abc$def:20000::::::\n", 0o640), "passwords etc/shadow"},
		"no password needed":   {add("etc/shadow", "root:*:1::::::\nguest::20000::::::\n", 0o640), "passwords etc/shadow"},
		"no password, passwd":  {add("etc/passwd", "root::0:0::/root:/bin/sh\n", 0o644), "passwords etc/passwd"},
		"group password":       {add("etc/gshadow", "sudo:$6$x$y::\n", 0o640), "passwords etc/gshadow"},
		"no shadow":            {func(_ testing.TB, tr *tree.Tree) { tr.Remove("etc/shadow") }, "passwords etc/shadow"},
		"private key":          {add("etc/pki/ca.key", key, 0o600), "secrets etc/pki/ca.key"},
		"private key, in YAML": {add("etc/x.yaml", "key: |\n  "+strings.ReplaceAll(key, "\n", "\n  "), 0o600), "secrets etc/x.yaml"},
		"private key, in JSON": {add("usr/lib/imgbuild/x.json", `{"key":"`+strings.ReplaceAll(key, "\n", `\n`)+`"}`, 0o600), "secrets usr/lib/imgbuild/x.json"},
		"private key, base64":  {add("etc/admin.conf", "client-key-data: "+base64.StdEncoding.EncodeToString([]byte(key))+"\n", 0o600), "secrets etc/admin.conf"},
		"certificate, base64":  {add("etc/x.conf", "client-certificate-data: "+base64.StdEncoding.EncodeToString([]byte("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"))+"\n", 0o600), ""},
		"private key, CRLF":    {add("etc/x.pem", strings.ReplaceAll(key, "\n", "\r\n"), 0o600), "secrets etc/x.pem"},
		"join token":           {add("etc/kubeadm.yaml", "token: abcdef.0123456789abcdef\n", 0o600), "secrets etc/kubeadm.yaml"},
		"token, anywhere":      {add("usr/share/site/note", "token: abcdef.0123456789abcdef\n", 0o644), "secrets usr/share/site/note"},
		"token, packaged": {func(t testing.TB, tr *tree.Tree) {
			put(t, tr, "usr/share/site/note", "token: abcdef.0123456789abcdef\n", 0o644)
			put(t, tr, "usr/lib/sysimage/dpkg/info/site.list", "/.\n/usr/share/site/note\n/etc/note\n", 0o644)
			put(t, tr, "etc/note", "token: abcdef.0123456789abcdef\n", 0o644)
		}, "secrets etc/note"},
		"name with a dot":     {add("usr/share/site/conf", "module.configurationfile\n", 0o644), ""},
		"world-writable file": {add("usr/share/open", "x", 0o666), "modes usr/share/open"},
		"world-writable dir": {func(t testing.TB, tr *tree.Tree) {
			if err := tr.Put("usr/share/drop", tree.Node{Mode: fs.ModeDir | 0o777}); err != nil {
				t.Fatal(err)
			}
		}, "modes usr/share/drop"},
		"file below /var": {add("var/leftover", "x", 0o644), "state var/leftover"},
		"random seed":     {func(t testing.TB, tr *tree.Tree) { put(t, tr, "var/lib/systemd/random-seed", "x", 0o600) }, "state var/lib state var/lib/systemd identity var/lib/systemd/random-seed"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := node(t)
			c.change(t, tr)
			if diff := cmp.Diff(c.want, strings.Join(findings(t, build(t, tr).Path), " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestDamage: bytes changed on the disk.
func TestDamage(t *testing.T) {
	d := build(t, node(t))
	good, err := verify.Image(t.Context(), d.Path)
	if err != nil {
		t.Fatal(err)
	}
	root, hashes := good.Partitions[1], good.Partitions[2]
	hash := where(t, d.Path, "roothash="+d.RootHash) + int64(len("roothash="))
	write := func(text string, at int64) func(*os.File) error {
		return func(f *os.File) error { _, err := f.WriteAt([]byte(text), at); return err }
	}
	bit := func(at int64) func(*os.File) error { return func(f *os.File) error { return flip(f, at, 3) } }
	for name, c := range map[string]struct {
		change func(*os.File) error
		want   string // the findings, or what the error says
	}{
		"root":                       {bit(root.Start + 4096*77), "verity"},
		"root, first byte":           {bit(root.Start), "verity"},
		"hash tree, top":             {bit(hashes.Start + 4096), "verity"},
		"hash tree, leaves":          {bit(hashes.Start + 8192), "verity"},
		"verity superblock":          {bit(hashes.Start), "verity"},
		"verity version":             {bit(hashes.Start + 8), "verity"},
		"verity salt":                {bit(hashes.Start + 88), "verity"},
		"verity, fewer blocks":       {bit(hashes.Start + 72), "verity"},
		"verity, endless blocks":     {write("\xff\xff\xff\xff\xff\xff\xff\x7f", hashes.Start+72), "verity"},
		"behind the root":            {write("smuggled", root.Start+root.Size-8), "verity"},
		"behind the hash tree":       {write("smuggled", hashes.Start+hashes.Size-8), "verity"},
		"root hash":                  {write("0000", hash), "partitions verity"},
		"root hash is none":          {write("xyz!", hash), "boot " + d.UKI},
		"root hash renamed":          {write("r00thash", hash-9), "boot " + d.UKI},
		"UKI's section renamed":      {write(".0srel", where(t, d.Path, ".osrel\x00")), "boot " + d.UKI},
		"UKI's section twice":        {write(".linux\x00\x00", where(t, d.Path, ".uname\x00\x00")), "boot " + d.UKI},
		"UKI's section nowhere":      {write("\x00\x00\x00\x00", where(t, d.Path, ".osrel\x00")+20), "section .osrel: its "},
		"UKI's section far away":     {write("\xff\xff\xff\x7f", where(t, d.Path, ".osrel\x00")+20), "section .osrel: its "},
		"primary header":             {bit(512 + 56), "primary partition table: the header's checksum is wrong"},
		"primary entries":            {bit(1024 + 128 + 32), "primary partition table: the entries' checksum is wrong"},
		"no primary":                 {write("EFI TRAP", 512), "primary partition table: no GPT header"},
		"backup header":              {bit(d.Size - 512 + 56), "backup partition table, at the end of the disk: the header's checksum"},
		"backup entries":             {bit(d.Size - 33*512), "backup partition table, at the end of the disk: the entries' checksum"},
		"the disk's end was cut off": {func(f *os.File) error { return f.Truncate(d.Size - 4096) }, "backup partition table, at the end of the disk: no GPT header"},
		"the file is cut to 1 KiB":   {func(f *os.File) error { return f.Truncate(1024) }, "primary partition table"},
		"the file is empty":          {func(f *os.File) error { return f.Truncate(0) }, "first bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			copied := duplicate(t, d.Path)
			corrupt(t, copied, c.change)
			r, err := verify.Image(t.Context(), copied)
			if err != nil {
				if !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v, want %q", err, c.want)
				}
				return
			}
			var got []string
			for _, f := range r.Findings {
				got = append(got, strings.TrimSpace(f.Check+" "+f.Path))
			}
			if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("%s %v", diff, r.Findings)
			}
		})
	}
}

func duplicate(t testing.TB, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(out, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTwoRootHashes: the node takes the first, so the second must not be the one that is checked.
func TestTwoRootHashes(t *testing.T) {
	d := build(t, node(t), "roothash="+strings.Repeat("00", 32))
	if diff := cmp.Diff([]string{"boot " + d.UKI}, findings(t, d.Path)); diff != "" {
		t.Error(diff)
	}
}

// TestNewHashTree: a changed root with a hash tree that fits it is still not the
// one that the command line names.
func TestNewHashTree(t *testing.T) {
	d := build(t, node(t))
	r, err := verify.Image(t.Context(), d.Path)
	if err != nil {
		t.Fatal(err)
	}
	corrupt(t, d.Path, func(f *os.File) error {
		if err := flip(f, r.Partitions[1].Start+4096*50, 0); err != nil {
			return err
		}
		super := make([]byte, 512)
		if _, err := f.ReadAt(super, r.Partitions[2].Start); err != nil {
			return err
		}
		size := int64(binary.LittleEndian.Uint64(super[72:])) * 4096
		if now := reseal(t, f, r.Partitions[1].Start, size, r.Partitions[2].Start, super[88:88+32]); now == d.RootHash {
			t.Error("the root hash did not change")
		}
		return nil
	})
	if diff := cmp.Diff([]string{"verity"}, findings(t, d.Path)); diff != "" {
		t.Error(diff)
	}
}

// TestBitFlips: of 200 bits anywhere in the root and the verity partition, each is caught.
func TestBitFlips(t *testing.T) {
	d := build(t, node(t))
	r, err := verify.Image(t.Context(), d.Path)
	if err != nil {
		t.Fatal(err)
	}
	root, hashes := r.Partitions[1], r.Partitions[2]
	start, length := root.Start, root.Size+hashes.Size
	random := rand.New(rand.NewPCG(1, 2))
	for n := range 200 {
		at, bit := start+random.Int64N(length), random.IntN(8)
		if id := at - hashes.Start; id >= 16 && id < 32 {
			continue // the superblock's own UUID, which means nothing
		}
		corrupt(t, d.Path, func(f *os.File) error { return flip(f, at, bit) })
		if diff := cmp.Diff([]string{"verity"}, findings(t, d.Path)); diff != "" {
			t.Errorf("flip %d, bit %d of byte %d: %s", n, bit, at, diff)
		}
		corrupt(t, d.Path, func(f *os.File) error { return flip(f, at, bit) })
	}
	if got := findings(t, d.Path); len(got) > 0 {
		t.Errorf("after all was put back: %v", got)
	}
}

// TestForeignFiles: a qcow2 image must not make the checker read another file.
func TestForeignFiles(t *testing.T) {
	d := build(t, node(t))
	for name, c := range map[string]struct {
		at, value int64
		want      string
	}{
		"backing file": {8, 0x68, "backing file"},
		"data file":    {72, 4, "data file"},
		"encrypted":    {32, 1, "encrypt"},
		"new feature":  {72, 1 << 40, "feature"},
	} {
		t.Run(name, func(t *testing.T) {
			file := to(t, d.Path, "qcow2", false)
			corrupt(t, file, func(f *os.File) error {
				width := 8
				if c.at == 32 {
					width = 4
				}
				b := binary.BigEndian.AppendUint64(nil, uint64(c.value))
				_, err := f.WriteAt(b[8-width:], c.at)
				return err
			})
			_, err := verify.Image(t.Context(), file)
			if err == nil || !strings.Contains(strings.ToLower(err.Error()), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
	if _, err := verify.Image(t.Context(), filepath.Join(t.TempDir(), "none")); !os.IsNotExist(err) {
		t.Error(err)
	}
}
