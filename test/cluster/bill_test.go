package cluster

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/CycloneDX/cyclonedx-go"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdxlib"

	"github.com/imgbuild/imgbuild/builder/boottest"
	"github.com/imgbuild/imgbuild/internal/run"
	"github.com/imgbuild/imgbuild/test/kit"
)

// signedBuild does what docs/supply-chain.md shows, line by line.
func signedBuild(ctx context.Context, t *testing.T, k kit.Kit, lock string) {
	dir := t.TempDir()
	page, err := os.ReadFile("../../docs/supply-chain.md")
	must(t, err)
	must(t, os.Mkdir(filepath.Join(dir, "out"), 0o755))
	must(t, run.Run(ctx, run.Cmd{Name: "cp", Args: []string{lock, filepath.Join(dir, "out", "imgbuild.lock")}}))
	script := "set -e\nPATH=" + k.Bin + ":$PATH\n"
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		script += block[1]
	}
	said, err := run.Output(ctx, run.Cmd{Name: "sh", Args: []string{"-c", script}, Dir: dir, Stderr: os.Stderr})
	must(t, err)
	if n := strings.Count(string(said), "Verified OK"); n != 2 {
		t.Errorf("openssl verified %d files of 2:\n%s", n, said)
	}
	t.Run("bills", func(t *testing.T) { readBills(t, filepath.Join(dir, "out")) })
}

// readBills reads both bills with the libraries of their formats: each file of
// the root has one owner.
func readBills(t *testing.T, dir string) {
	f, err := os.Open(filepath.Join(dir, "worker.spdx.json"))
	must(t, err)
	defer f.Close()
	doc, err := spdxjson.Read(f)
	must(t, err)
	must(t, spdxlib.ValidateDocument(doc))
	owned := map[string]int{}
	for _, r := range doc.Relationships {
		if r.Relationship == "CONTAINS" {
			owned[string(r.RefB.ElementRefID)]++
		}
	}
	for _, file := range doc.Files {
		if owned[string(file.FileSPDXIdentifier)] != 1 {
			t.Errorf("%s belongs to %d components", file.FileName, owned[string(file.FileSPDXIdentifier)])
		}
	}
	bom := readCycloneDX(t, filepath.Join(dir, "worker.cdx.json"))
	places := 0
	for _, c := range *bom.Components {
		if c.PackageURL == "" || c.Version == "" {
			t.Errorf("%s has the version %q and the package URL %q", c.Name, c.Version, c.PackageURL)
		}
		if c.Evidence != nil {
			places += len(*c.Evidence.Occurrences)
		}
	}
	for _, d := range *bom.Dependencies {
		if strings.HasPrefix(d.Ref, "part/kubelet@") && len(*d.Dependencies) < 50 {
			t.Errorf("kubelet is built from %d modules", len(*d.Dependencies))
		}
	}
	t.Logf("%d files, %d components, %d SPDX packages", len(doc.Files), len(*bom.Components), len(doc.Packages))
	if len(doc.Files) < 1000 || places != len(doc.Files) {
		t.Errorf("SPDX has %d files, CycloneDX %d", len(doc.Files), places)
	}
}

func readCycloneDX(t *testing.T, file string) *cyclonedx.BOM {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	var bom cyclonedx.BOM
	must(t, cyclonedx.NewBOMDecoder(f, cyclonedx.BOMFileFormatJSON).Decode(&bom))
	return &bom
}

// billIsTrue holds the bills against what the booted nodes themselves say.
func (s *suite) billIsTrue(t *testing.T) {
	s.onBoth(t, func(t *testing.T, role string, m *boottest.Machine) {
		bom := readCycloneDX(t, filepath.Join(s.kit.Dir, "out", role+".cdx.json"))
		packages, parts := map[string]string{}, map[string]string{}
		for _, c := range *bom.Components {
			switch {
			case strings.HasPrefix(c.BOMRef, "package/"):
				packages[c.Name] = c.Version
			case strings.HasPrefix(c.BOMRef, "part/"):
				parts[c.Name] = c.Version
			}
		}
		installed := strings.Fields(sh(t, m, `dpkg-query -W -f '${Package} ${Version}\n'`))
		if len(installed) != 2*len(packages) || len(packages) < 50 {
			t.Errorf("%s: dpkg knows %d packages, the bill %d", role, len(installed)/2, len(packages))
		}
		for i := 0; i+1 < len(installed); i += 2 {
			if packages[installed[i]] != installed[i+1] {
				t.Errorf("%s: package %s is %s, the bill says %q", role, installed[i], installed[i+1], packages[installed[i]])
			}
		}
		for part, ask := range map[string]string{"kubelet": "kubelet --version", "kubeadm": "kubeadm version -o short", "kubectl": "kubectl version --client",
			"crictl": "crictl --version", "containerd": "containerd --version"} {
			if said := sh(t, m, ask+" 2>/dev/null || true"); parts[part] != "" && !regexp.MustCompile(`\bv?`+regexp.QuoteMeta(parts[part])+`\b`).MatchString(said) {
				t.Errorf("%s: %s says %q, the bill %q", role, part, said, parts[part])
			}
		}
		t.Logf("%s: %d packages, parts %v", role, len(packages), parts)
	})
}
