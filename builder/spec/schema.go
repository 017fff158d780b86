package spec

import (
	_ "embed" // the types' comments are the schema's descriptions
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"

	"github.com/invopop/jsonschema"
)

//go:embed spec.go
var typesSource string

// Schema returns the JSON Schema (draft 2020-12) of a document that a user writes:
// the types, their comments, and the rules. It says what Load says about single
// values; how values fit together only Load knows.
func Schema() ([]byte, error) {
	root, err := schema()
	if err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding schema: %w", err)
	}
	return append(data, '\n'), nil
}

func schema() (*jsonschema.Schema, error) {
	comments, err := typeComments()
	if err != nil {
		return nil, err
	}
	reflector := jsonschema.Reflector{
		Anonymous:      true,
		DoNotReference: true,
		LookupComment: func(t reflect.Type, name string) string {
			if name == "" {
				return "" // a key's own comment says it
			}
			return comments[t.Name()+"."+name]
		},
	}
	root := reflector.Reflect(Node{})
	root.Title = "imgbuild " + Kind
	root.Description = "One Kubernetes node, as the user says it. Lies over the role's profile."
	narrow(root, "")
	root.Required = []string{"apiVersion", "kind"}
	return root, nil
}

// typeComments returns the comment of each field in spec.go by "Type.Field".
func typeComments() (map[string]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), "spec.go", typesSource, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("reading the types' comments: %w", err)
	}
	comments := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		t, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		s, ok := t.Type.(*ast.StructType)
		if !ok {
			return false
		}
		for _, f := range s.Fields.List {
			for _, name := range f.Names {
				comments[t.Name.Name+"."+name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
			}
		}
		return false
	})
	return comments, nil
}

// mustHave are the keys that an item of a list cannot do without.
var mustHave = map[string][]string{"files[]": {"path"}, "units[]": {"name"}, "users[]": {"name", "uid"},
	"base.repositories[]": {"url", "suite", "keyring"}}

// narrow adds the rules to the schema of the value at path and to all below it.
func narrow(s *jsonschema.Schema, path string) {
	switch s.Type {
	case "object":
		if s.Properties == nil { // a map
			s.PropertyNames = &jsonschema.Schema{}
			apply(s.PropertyNames, rules[path+".*key"])
			value := &jsonschema.Schema{Type: "string"}
			apply(value, rules[path+".*"])
			s.AdditionalProperties = &jsonschema.Schema{AnyOf: []*jsonschema.Schema{value, {Type: "integer"}}}
			break
		}
		s.Required = mustHave[path]
		for p := s.Properties.Oldest(); p != nil; p = p.Next() {
			narrow(p.Value, join(path, p.Key))
		}
	case "array":
		s.MaxItems = number(maxItems)
		narrow(s.Items, path+"[]")
	case "string":
		apply(s, rules[path])
	}
}

func apply(s *jsonschema.Schema, r rule) {
	for _, v := range r.Enum {
		s.Enum = append(s.Enum, v)
	}
	s.Pattern = r.Pattern
	if len(r.Enum) == 0 {
		s.MaxLength = number(max(r.Max, 0))
		if r.Max == 0 {
			s.MaxLength = number(maxText)
		}
	}
}

func number(n int) *uint64 {
	u := uint64(n) //nolint:gosec // all callers give small constants
	return &u
}
