package component

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgbuild/imgbuild/builder/spec"
)

var update = flag.Bool("update", false, "write docs/firewall.md and the table in docs/contents.md anew")

// TestPage holds docs/firewall.md against the tables, and against what TestStranger
// last saw.
func TestPage(t *testing.T) {
	const page = "../../docs/firewall.md"
	text, err := os.ReadFile("firewall.md")
	if err != nil {
		t.Fatal(err)
	}
	scan, err := os.ReadFile("testdata/scan.md")
	if err != nil {
		t.Fatal(err)
	}
	want := "<!-- Generated from builder/component by \"go test ./builder/component -update\". Do not edit. -->\n" +
		strings.NewReplacer("<!-- roles -->\n", roleRows(), "<!-- networks -->\n", networkRows(), "<!-- scan -->\n", string(scan)).Replace(string(text))
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(got), want); diff != "" {
		t.Errorf("docs/firewall.md is old; run make generate (-page +tables):\n%s", diff)
	}
}

// TestPageLeftOut holds the table in docs/contents.md against that of what is left out.
func TestPageLeftOut(t *testing.T) {
	const page, begin, end = "../../docs/contents.md", "<!-- left out -->\n", "<!-- /left out -->\n"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the table", page)
	}
	var b strings.Builder
	b.WriteString("| keep | what is left out without it |\n|---|---|\n")
	for _, l := range leftOuts {
		fmt.Fprintf(&b, "| `%s` | %s |\n", l.Name, l.What)
	}
	want := before + begin + b.String() + end + after
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		text = []byte(want)
	}
	if diff := cmp.Diff(string(text), want); diff != "" {
		t.Errorf("docs/contents.md is old; run make generate (-page +tables):\n%s", diff)
	}
}

func roleRows() string {
	var b strings.Builder
	b.WriteString("| role | port | for |\n|---|---|---|\n")
	for _, role := range slices.Sorted(maps.Keys(rolePorts)) {
		for _, p := range rolePorts[role] {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", role, portText(p), p.Why)
		}
	}
	fmt.Fprintf(&b, "| master | %s | %s |\n", portText(vrrp), vrrp.Why)
	return b.String()
}

func networkRows() string {
	var b strings.Builder
	b.WriteString("| `cni.name` | `cni.backend` | ports between nodes | with `encryption: wireguard` | modules | its pods come in by | networkd leaves alone | `rp_filter` |\n|---|---|---|---|---|---|---|---|\n")
	for _, name := range spec.Networks() {
		p := podNetworks[name]
		for _, backend := range append(spec.Backends(name), "")[:max(1, len(p.Backends))] {
			ports, _ := PodPorts(name, backend)
			var texts []string
			for _, port := range ports {
				texts = append(texts, portText(port)+" ("+port.Why+")")
			}
			secret := "–"
			if p.Secret.First != 0 {
				secret = portText(p.Secret)
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", name, orDash(backend), orDash(texts...), secret,
				orDash(p.Backends[backend].Modules...), orDash(code(p.Pods)...), orDash(code(foreignLinks(name)[:len(foreignLinks(name))-len(otherLinks)])...), p.RPFilter)
		}
	}
	return b.String()
}

func code(words []string) (out []string) {
	for _, w := range words {
		out = append(out, "`"+w+"`")
	}
	return out
}

func orDash(words ...string) string {
	if text := strings.Join(words, ", "); text != "" {
		return text
	}
	return "–"
}

func portText(p Port) string {
	switch {
	case p.Proto == "ip":
		return fmt.Sprintf("IP protocol %d", p.First)
	case p.First == p.Last:
		return fmt.Sprintf("%s/%d", p.Proto, p.First)
	}
	return fmt.Sprintf("%s/%d-%d", p.Proto, p.First, p.Last)
}
