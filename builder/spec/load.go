package spec

import (
	"cmp"
	"io/fs"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Where a value came from, if not from a file or --set: what Load filled in, and
// the beginning of a profile's name.
const (
	fromDefault = "default"
	fromProfile = "profile "
)

// commonProfile is laid below the profile of the role.
const commonProfile = "common"

// Document is a file that the caller has read, up to one byte more than
// MaxDocument. Name is what findings call it.
type Document struct {
	Name string
	Data []byte
}

// Input is what a node is loaded from; later parts win over earlier ones.
type Input struct {
	Role     string     // what the command says; empty: what a file or --set says
	Profiles fs.FS      // common.yaml and ROLE.yaml; an in-memory file system
	Files    []Document // what the user wrote
	Sets     []string   // "kubernetes.version=1.37.2"
}

// Load merges profile → files → --set, fills in what depends on other values and
// validates the outcome. It returns a nil node if any finding is an error
// (Findings.Err); warnings come with a complete node.
func Load(in Input) (*Node, Findings) {
	n := &Node{Header: Header{origins: origins{}}}
	documents, found := parseAll(in.Files)
	role := in.Role
	if role == "" {
		role = writtenRole(documents, in.Sets)
	}
	if message, hint := rules["role"].check(role); message != "" {
		return nil, append(found, roleFinding(in, documents, role, message, hint))
	}
	found = append(found, n.profile(in.Profiles, commonProfile)...)
	found = append(found, n.profile(in.Profiles, role)...)
	n.Role = role
	n.origins["role"] = Pos{File: fromDefault}
	for i, document := range documents {
		if document == nil {
			continue
		}
		found = append(found, n.lay(in.Files[i].Name, document)...)
		found = append(found, n.sameRole(role)...)
	}
	for _, assignment := range in.Sets {
		found = append(found, set(n, assignment)...)
		found = append(found, n.sameRole(role)...)
	}
	n.resolve()
	found = inOrder(in, append(found, Validate(n)...))
	if found.Err() != nil {
		return nil, found
	}
	return n, found
}

// inOrder sorts findings as the sources lie: profiles, files, --set.
func inOrder(in Input, found Findings) Findings {
	place := func(f Finding) int {
		i := slices.IndexFunc(in.Files, func(s Document) bool { return s.Name == f.File })
		switch {
		case i >= 0:
			return i
		case strings.HasPrefix(f.File, strings.TrimSpace(fromSet)):
			return len(in.Files)
		}
		return -1
	}
	slices.SortStableFunc(found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return found
}

// parseAll parses the files; a document that is not well formed is nil.
func parseAll(files []Document) ([]*yaml.Node, Findings) {
	documents := make([]*yaml.Node, len(files))
	var found Findings
	for i, f := range files {
		document, bad := parse(f.Name, f.Data)
		documents[i] = document
		found = append(found, bad...)
	}
	return documents, found
}

// profile lays an embedded profile over the node.
func (n *Node) profile(profiles fs.FS, name string) Findings {
	data, err := fs.ReadFile(profiles, name+".yaml")
	if err != nil {
		return Findings{{Pos: Pos{File: fromProfile + name}, Message: "the profile can not be read: " + err.Error()}}
	}
	document, found := parse(fromProfile+name, data)
	if document == nil {
		return found
	}
	return append(found, n.lay(fromProfile+name, document)...)
}

// lay decodes one document over the node. Every document says what it is.
func (n *Node) lay(file string, document *yaml.Node) Findings {
	d := decoder{file: file, origins: n.origins}
	d.value(document, reflect.ValueOf(n).Elem(), "")
	if document.Kind != yaml.MappingNode {
		return d.found
	}
	for _, want := range []struct {
		key, value string
		got        *string
	}{{"apiVersion", APIVersion, &n.APIVersion}, {"kind", Kind, &n.Kind}} {
		v, ok := valueOf(document, want.key)
		switch message, hint := rules[want.key].check(*want.got); {
		case !ok:
			d.fail(document, want.key, "missing", sprintf("add %q", want.key+": "+want.value))
		case message != "" && *want.got != "":
			d.fail(v, want.key, message, hint)
		}
		*want.got = want.value // said once is enough
	}
	return d.found
}

// sameRole reports a role that the last source changed, and takes the change back.
func (n *Node) sameRole(role string) Findings {
	if n.Role == role || !slices.Contains(roles, n.Role) {
		return nil
	}
	f := Finding{Pos: n.origins["role"], Path: "role", Message: sprintf("%q, but the node is built as %s", n.Role, role),
		Hint: sprintf("remove the key or build it by \"imgbuild %s\"", n.Role)}
	n.Role = role
	return Findings{f}
}

// valueOf returns a document's top-level value by its key.
func valueOf(document *yaml.Node, key string) (*yaml.Node, bool) {
	if document == nil || document.Kind != yaml.MappingNode {
		return nil, false
	}
	for i := 0; i+1 < len(document.Content); i += 2 {
		if document.Content[i].Value == key {
			return document.Content[i+1], true
		}
	}
	return nil, false
}

// writtenRole returns the role that the last source names, or "".
func writtenRole(documents []*yaml.Node, sets []string) string {
	for _, assignment := range slices.Backward(sets) {
		if role, ok := strings.CutPrefix(assignment, "role="); ok {
			return role
		}
	}
	for _, document := range slices.Backward(documents) {
		if role, ok := valueOf(document, "role"); ok {
			return role.Value
		}
	}
	return ""
}

// roleFinding says that there is no role, or none that is known, and where.
func roleFinding(in Input, documents []*yaml.Node, role, message, hint string) Finding {
	f := Finding{Path: "role", Message: message, Hint: hint}
	if role == "" {
		f.Message, f.Hint = "missing", "say what the node is: imgbuild master or imgbuild worker, or role: in a file"
	}
	if in.Role != "" {
		return f
	}
	for _, assignment := range in.Sets {
		if strings.HasPrefix(assignment, "role=") {
			f.Pos = Pos{File: fromSet + "role"}
		}
	}
	if f.File != "" {
		return f
	}
	for i, document := range documents {
		if v, ok := valueOf(document, "role"); ok {
			f.Pos = Pos{in.Files[i].Name, v.Line, v.Column}
		}
	}
	return f
}
