package bill

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdxlib"

	"github.com/imgbuild/imgbuild/builder/component"
	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/plan"
	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/internal/tree"
)

const status = `Package: bash
Status: install ok installed
Maintainer: Matthias Klose <doko@debian.org>
Architecture: amd64
Version: 5.2.37-2+b5

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: base-passwd
Status: install ok installed
Architecture: amd64
Version: 1:3.6.7
`

func example(t *testing.T) (*plan.Plan, *tree.Tree) {
	t.Helper()
	self, err := os.Executable() // a real program that carries Go's build information
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(self)
	if err != nil {
		t.Fatal(err)
	}
	root := tree.New()
	for p, c := range map[string]tree.Content{
		"usr/lib/os-release": tree.Bytes("ID=debian\n"), "usr/bin/bash": tree.Bytes("\x7fELF bash"), "etc/passwd": tree.Bytes("root:x:0:0::/root:/bin/sh\n"),
		dpkgDir + "/status": tree.Bytes(status), dpkgDir + "/info/bash.list": tree.Bytes("/.\n/bin\n/bin/bash\n/usr/share/gone\n/etc/kept.conf\n"), dpkgDir + "/info/base-passwd.list": tree.Bytes("/.\n"),
		"etc/kept.conf": tree.Bytes("ours now"), "usr/bin/kubelet": tree.Section{File: self, Length: info.Size()}, "usr/share/stray": tree.Bytes("whose?"),
		imagesDir + "meta.db": tree.Bytes("records"), imagesDir + "snapshots/1/fs/bin/pause": tree.Bytes("a program"),
	} {
		if err := root.Put(p, tree.Node{Mode: 0o644, Content: c}); err != nil {
			t.Fatal(err)
		}
	}
	if err := root.Put("bin", tree.Node{Mode: 0o777 | os.ModeSymlink, Link: "usr/bin"}); err != nil {
		t.Fatal(err)
	}
	return &plan.Plan{ID: strings.Repeat("ab", 32), Role: "worker", Arch: "amd64", Spec: &spec.Node{}, Tools: map[string]string{"imgbuild-firstboot": "sha256:00"},
		Inputs: []lock.Pin{
			{Kind: lock.KindPart, Name: "kubelet", Version: "1.37.2", Source: "gomodule", URL: "k8s.io/kubernetes@v1.37.2", Digest: "h1:abc="},
			{Kind: lock.KindImage, Name: "registry.k8s.io/pause:3.10.2", Version: "3.10.2", Digest: "sha256:" + strings.Repeat("cd", 32)},
		},
		Files: []component.File{{Path: "/usr/bin/kubelet", Part: "kubelet"}, {Path: "/etc/kept.conf", Text: "ours now"}},
	}, root
}

func TestOwners(t *testing.T) {
	p, root := example(t)
	b, err := Make(t.Context(), Image{Plan: p, Version: "1.37.2-abab", Root: root, Containers: map[string]string{imagesDir + "snapshots/1/fs": "registry.k8s.io/pause:3.10.2"}}, Sums{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, c := range b.Components {
		if c.Kind != Module {
			got[c.Reference()+" "+c.PURL] = strings.Join(c.Files, " ")
		}
		if c.Name == "kubelet" && len(c.Needs) == 0 { // a test binary tells no more than its Go version
			t.Errorf("kubelet is built from %v", c.Needs)
		}
	}
	want := map[string]string{
		"package/bash@5.2.37-2+b5 pkg:deb/debian/bash@5.2.37-2%2Bb5?arch=amd64":                     "usr/bin/bash " + dpkgDir + "/info/bash.list",
		"package/base-passwd@1:3.6.7 pkg:deb/debian/base-passwd@1%3A3.6.7?arch=amd64":               "etc/passwd " + dpkgDir + "/info/base-passwd.list",
		"part/kubelet@1.37.2 pkg:golang/k8s.io/kubernetes@v1.37.2#kubelet":                          "usr/bin/kubelet",
		"container/registry.k8s.io/pause@3.10.2 pkg:oci/pause@sha256%3A" + strings.Repeat("cd", 32): imagesDir + "snapshots/1/fs/bin/pause",
		"imgbuild/node@1.37.2-abab pkg:generic/imgbuild-node@1.37.2-abab":                           "etc/kept.conf " + imagesDir + "meta.db usr/lib/os-release",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{dpkgDir + "/status", "usr/share/stray"}, b.Unowned); d != "" {
		t.Error(d) // without the package dpkg, its database is nobody's
	}
	if !b.Files["usr/bin/bash"].ELF || b.Files["etc/passwd"].ELF {
		t.Error("ELF files are not told from others")
	}
}

func TestDocuments(t *testing.T) {
	p, root := example(t)
	var first [][]byte
	for range 2 {
		b, err := Make(t.Context(), Image{Plan: p, Version: "1", Root: root}, Sums{})
		if err != nil {
			t.Fatal(err)
		}
		var all [][]byte
		for _, write := range []func() ([]byte, error){b.SPDX, b.CycloneDX, func() ([]byte, error) { return Provenance(p, []Subject{SHA256("worker.raw", "00")}) }} {
			text, err := write()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, text)
		}
		if first == nil {
			first = all
		}
		for i := range all {
			if !bytes.Equal(first[i], all[i]) {
				t.Errorf("document %d differs the second time", i)
			}
		}
	}
	doc, err := spdxjson.Read(bytes.NewReader(first[0]))
	if err == nil {
		err = spdxlib.ValidateDocument(doc)
	}
	if err != nil {
		t.Error(err)
	}
	for _, want := range []string{`"dirHash1": "abc="`, `"predicateType": "https://slsa.dev/provenance/v1"`, `"uri": "pkg:golang/k8s.io/kubernetes@v1.37.2"`} {
		if !strings.Contains(string(first[2]), want) {
			t.Errorf("the statement lacks %s:\n%s", want, first[2])
		}
	}
}

func pemFile(t *testing.T, kind string, der []byte, mode os.FileMode) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestKeys(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good, _ := x509.MarshalPKCS8PrivateKey(ec)
	other, _ := x509.MarshalPKCS8PrivateKey(ed)
	for name, c := range map[string]struct{ file, want string }{
		"open to others": {pemFile(t, "PRIVATE KEY", good, 0o640), "chmod 600"},
		"encrypted":      {pemFile(t, "ENCRYPTED PRIVATE KEY", good, 0o600), "is encrypted"},
		"of cosign":      {pemFile(t, "ENCRYPTED SIGSTORE PRIVATE KEY", good, 0o600), "is encrypted"},
		"ed25519":        {pemFile(t, "PRIVATE KEY", other, 0o600), "want ECDSA or RSA"},
		"garbage":        {pemFile(t, "PRIVATE KEY", []byte("x"), 0o600), "want ECDSA or RSA"},
		"missing":        {"none.pem", "no such file"},
	} {
		if _, err := LoadKey(t.Context(), c.file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	k, err := LoadKey(t.Context(), pemFile(t, "PRIVATE KEY", good, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("x"))
	one, err := k.Sign(hex.EncodeToString(sum[:]))
	if err != nil || !ecdsa.VerifyASN1(&ec.PublicKey, sum[:], one) {
		t.Errorf("the signature is not good (%v)", err)
	}
	if two, _ := k.Sign(hex.EncodeToString(sum[:])); !bytes.Equal(one, two) {
		t.Error("the same file has two signatures")
	}
}

// TestDamagedStatus: no bill is made of a part of the packages.
func TestDamagedStatus(t *testing.T) {
	root := tree.New()
	if err := root.Put(dpkgDir+"/status", tree.Node{Mode: 0o644, Content: tree.Bytes(status + "\n\x00\x00\n")}); err != nil {
		t.Fatal(err)
	}
	if packages, err := readPackages(root, "amd64"); err == nil || !strings.Contains(err.Error(), "dpkg's status: line ") {
		t.Errorf("%v, %v", packages, err)
	}
}
