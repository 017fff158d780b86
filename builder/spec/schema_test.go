package spec_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/imgbuild/imgbuild/builder/spec"
	"github.com/imgbuild/imgbuild/profiles"
)

var update = flag.Bool("update", false, "write docs/spec.md anew")

// compiled returns the published schema as an independent validator reads it.
func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	data, err := spec.Schema()
	if err != nil {
		t.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("node.json", document); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("node.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// accepts reports whether the schema accepts a YAML document, read by a plain decoder.
func accepts(t *testing.T, s *jsonschema.Schema, document []byte) bool {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(document, &v); err != nil {
		return false
	}
	data, err := json.Marshal(v)
	if err != nil {
		return false
	}
	plain, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(plain) == nil
}

func TestProfilesFollowSchema(t *testing.T) {
	s := compiled(t)
	names, err := fs.Glob(profiles.Files, "*.yaml")
	if err != nil || len(names) != 1+len(spec.Roles()) {
		t.Fatalf("profiles %v, %v", names, err)
	}
	for _, name := range names {
		data, err := fs.ReadFile(profiles.Files, name)
		if err != nil {
			t.Fatal(err)
		}
		if !accepts(t, s, data) {
			t.Errorf("%s does not follow the schema", name)
		}
	}
}

// TestSchemaAndDecoderAgree: what the schema refuses Load refuses; what Load
// refuses the schema refuses, but for how values fit together and for what YAML
// itself lets through.
func TestSchemaAndDecoderAgree(t *testing.T) {
	beyondSchema := map[string]bool{ // meaning, not shape
		"no minor of ours": true, "too old": true, "kubelet newer": true, "kubelet newer patch": true, "kubelet too old": true,
		"kubelet minor without patch": true, "containerd 3": true, "containerd 1 from modules": true, "containerd 2 from the base": true,
		"other role in file": true, "words of the image": true, "no format": true,
		"setting that keeps the kubelet down": true, "BIOS of arm64": true,
		"file under /var": true, "file that climbs": true, "file twice": true, "private key": true, "token": true, "NUL in content": true,
		// the decoder of this test, not the schema, takes these apart
		"alias": true, "tag": true, "merge key": true, "two documents": true, "escape": true,
	}
	s := compiled(t)
	for _, group := range [][]badCase{badShape, badVersion, badValue} {
		for _, c := range group {
			if len(c.sets) > 0 || c.document == "" || beyondSchema[c.name] {
				continue
			}
			if accepts(t, s, []byte(head+c.document)) {
				t.Errorf("%s: refused by Load, not by the schema", c.name)
			}
		}
	}
	for _, document := range good {
		if _, found := load("worker", head+document); found.Err() != nil {
			t.Errorf("refused by Load:\n%s\n%v", document, found)
		}
		if !accepts(t, s, []byte(head+document)) {
			t.Errorf("refused by the schema:\n%s", document)
		}
	}
}

// good are documents that both accept.
var good = []string{
	"",
	"role: worker\narch: amd64\n",
	"base: {name: debian-trixie, mirror: \"http://mirror.example/debian\", kernel: generic, packages: [vim-tiny, g++]}\n",
	"base: {mirror: \"file:///srv/mirror/debian\"}\n",
	"base: {mirror: \"http://mirror.example/debian/20260131T120000Z\", keyring: ./debian.pgp, repositories: [{url: \"https://packages.example/debian\", suite: stable, components: [main, extra], keyring: keys/own.asc}]}\n",
	"base: {oci: \"registry.example:5000/os/debian:13\"}\n",
	"base: {oci: \"registry.example/os@sha256:" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" + "\"}\n",
	"kubernetes: {version: 1.36.9, kubeletVersion: 1.34.1, source: release, release: {url: \"https://release.example/x\", registry: \"registry.example:5000/k8s\", roots: ./roots.pem}}\n",
	"kubernetes: {version: \"1.35\", source: oci, oci: ./layout, podCIDR: 10.0.0.0/8, serviceCIDR: 192.168.0.0/24, dnsDomain: k8s.example, proxyMode: iptables}\n",
	"kubernetes: {source: dir, dir: ../parts}\n",
	"containerd: {version: 2.2.0, source: dir, dir: /srv/containerd}\n",
	"containerd: {version: \"1.7\", source: base}\n",
	"cni: {name: none}\n",
	"cni: {version: 0.26.7, backend: host-gw}\n",
	"firewall: {enabled: false, allow: [tcp/1, udp/30000-30100]}\n",
	"boot: {cmdline: [quiet, \"mitigations=auto,nosmt\"], console: [tty0], modules: [br_netfilter], sysctls: {net.ipv4.conf.all.rp_filter: 0, kernel.printk: 4 4 1 7, net.ipv4.ip_local_port_range: \"1024 65000\"}}\n",
	"time: {servers: [ntp.example.org, 10.0.0.1, \"fd00::1\"]}\n",
	"files: [{path: /etc/systemd/system/x@a.service, content: \"[Unit]\\n\\tä\\n\", mode: \"0600\"}, {path: /usr/local/bin/x, content: \"\"}]\n",
	"disk: {varSize: 512Mi}\noutput: {formats: [qcow2], compress: true, name: edge-1.2}\n",
}

func TestPage(t *testing.T) {
	got, err := spec.Page()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("..", "..", "docs", "spec.md")
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("docs/spec.md is old; run go test ./builder/spec -update (-page +schema):\n%s", diff)
	}
	blocks := strings.Split(string(want), "```yaml\n")[1:]
	if len(blocks) < 3 {
		t.Fatalf("%d examples", len(blocks))
	}
	s := compiled(t)
	for i, block := range blocks {
		example, _, _ := strings.Cut(block, "```")
		if _, found := load("worker", example); found.Err() != nil {
			t.Errorf("example %d:\n%v", i+1, found)
		}
		if !accepts(t, s, []byte(example)) {
			t.Errorf("example %d does not follow the schema", i+1)
		}
	}
}
