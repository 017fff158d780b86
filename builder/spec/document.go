package spec

import (
	_ "embed" // the page's text
	"fmt"
	"strings"

	"github.com/invopop/jsonschema"
)

//go:embed document.md
var pageText string

// The marks in document.md that the generated parts take the place of.
const (
	keysMark     = "<!-- keys -->\n"
	versionsMark = "<!-- versions -->\n"
)

// Page returns docs/spec.md: the text of document.md with the table of keys from the
// schema and the table of versions.
func Page() ([]byte, error) {
	root, err := schema()
	if err != nil {
		return nil, err
	}
	var keys strings.Builder
	keys.WriteString("| key | type | what it is |\n|---|---|---|\n")
	rows(&keys, root, "")
	var versions strings.Builder
	versions.WriteString("| Kubernetes | newest known patch |\n|---|---|\n")
	for i, m := range kubernetesMinors {
		fmt.Fprintf(&versions, "| %s | %s%s |\n", m.Minor, m.Newest, map[bool]string{true: " (default)"}[i == 0])
	}
	page := strings.Replace(pageText, keysMark, keys.String(), 1)
	return []byte(strings.Replace(page, versionsMark, versions.String(), 1)), nil
}

// rows writes one row for each value below s.
func rows(b *strings.Builder, s *jsonschema.Schema, path string) {
	for p := s.Properties.Oldest(); p != nil; p = p.Next() {
		at, v, kind := join(path, p.Key), p.Value, p.Value.Type
		item := v
		switch {
		case v.Type == "array":
			item, kind = v.Items, "list"
			if item.Properties != nil {
				at += "[]"
			}
		case v.Type == "object" && v.Properties == nil:
			kind = "texts by name"
		case v.Type == "boolean":
			kind = "true, false"
		case v.Type == "string":
			kind = "text"
		}
		if item.Properties != nil {
			rows(b, item, at)
			continue
		}
		if len(item.Enum) > 0 {
			kind = ""
			for i, e := range item.Enum {
				kind += fmt.Sprintf("%s`%v`", map[bool]string{true: ", "}[i > 0], e)
			}
			if v.Type == "array" {
				kind = "list of " + kind
			}
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", at, kind, strings.ReplaceAll(v.Description, "|", `\|`))
	}
}
