package source

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Constants implements Source by reading kubeadm's own source text, without building it.
func (g *goModule) Constants(ctx context.Context, kubernetes string) (Constants, error) {
	info, err := g.download(ctx, kubernetesModule, kubernetes)
	if err != nil {
		return Constants{}, err
	}
	return readConstants(filepath.Join(info.Dir, "cmd", "kubeadm", "app", "constants", "constants.go"), nil, kubernetes)
}

// readConstants parses kubeadm's constants.go (src as in parser.ParseFile).
func readConstants(name string, src any, kubernetes string) (Constants, error) {
	file, err := parser.ParseFile(token.NewFileSet(), name, src, parser.SkipObjectResolution)
	if err != nil {
		return Constants{}, err
	}
	_, rest, _ := strings.Cut(kubernetes, ".")
	minorText, _, _ := strings.Cut(rest, ".")
	minor, err := strconv.Atoi(minorText)
	if err != nil {
		return Constants{}, fmt.Errorf("%q is no Kubernetes version", kubernetes)
	}
	texts, etcd := map[string]string{}, map[int]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Names) != 1 || len(spec.Values) != 1 {
			return true
		}
		switch v := spec.Values[0].(type) {
		case *ast.BasicLit:
			texts[spec.Names[0].Name], _ = strconv.Unquote(v.Value)
		case *ast.CompositeLit:
			if spec.Names[0].Name == "SupportedEtcdVersion" {
				etcd = etcdTable(v, minor)
			}
		}
		return true
	})
	c := Constants{Etcd: nearest(etcd, minor, texts["DefaultEtcdVersion"]), CoreDNS: texts["CoreDNSVersion"], Pause: texts["PauseVersion"]}
	if c.Etcd == "" || c.CoreDNS == "" || c.Pause == "" {
		return Constants{}, fmt.Errorf("%s: the versions of etcd, CoreDNS and pause are not where they were up to 1.37", name)
	}
	return c, nil
}

// etcdTable reads the map literal. Its keys are minor versions, or calls of
// getSkewedKubernetesVersion(n), which count from kubeadm's own minor version.
func etcdTable(lit *ast.CompositeLit, minor int) map[int]string {
	out := map[int]string{}
	for _, e := range lit.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		value, ok := kv.Value.(*ast.BasicLit)
		if !ok {
			continue
		}
		text, _ := strconv.Unquote(value.Value)
		sign, skewed := 1, false
		ast.Inspect(kv.Key, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				skewed = skewed || n.Name == "getSkewedKubernetesVersion"
			case *ast.UnaryExpr:
				if n.Op == token.SUB {
					sign = -1
				}
			case *ast.BasicLit:
				if k, err := strconv.Atoi(n.Value); err == nil && skewed {
					out[minor+sign*k] = text
				} else if err == nil {
					out[k] = text
				}
			}
			return true
		})
	}
	return out
}

// nearest follows kubeadm's EtcdSupportedVersion: the entry of that minor, else
// the first or the last of the table; without a table the default.
func nearest(table map[int]string, minor int, fallback string) string {
	if v, ok := table[minor]; ok {
		return v
	}
	known := slices.Sorted(maps.Keys(table))
	switch {
	case len(known) == 0:
		return fallback
	case minor < known[0]:
		return table[known[0]]
	}
	return table[known[len(known)-1]]
}
