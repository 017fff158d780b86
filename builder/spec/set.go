package spec

import (
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// fromSet begins the Pos.File of a value that was given by --set; its path follows.
const fromSet = "--set "

// set lays one "path=value" over the node. The target decides how the value is
// read: a list takes its items between commas ("\," is a comma in an item), a map
// the rest of the path as its key.
func set(n *Node, assignment string) Findings {
	path, text, ok := strings.Cut(assignment, "=")
	pos := Pos{File: fromSet + path}
	fail := func(message, hint string) Findings {
		return Findings{{Pos: pos, Path: path, Message: message, Hint: hint}}
	}
	switch {
	case firstBad([]byte(assignment)) >= 0 || strings.ContainsAny(assignment, "\r\n"):
		return Findings{{Pos: Pos{File: strings.TrimSpace(fromSet)}, Message: sprintf("%s holds control characters or bytes that are not UTF-8", quote(assignment)), Hint: "give such values in a file with -f"}}
	case len(assignment) > MaxDocument:
		return Findings{{Pos: Pos{File: strings.TrimSpace(fromSet)}, Message: sprintf("%d bytes long, %d are allowed", len(assignment), MaxDocument)}}
	case !ok || path == "" || !oneLine(path):
		return Findings{{Pos: Pos{File: strings.TrimSpace(fromSet)}, Message: sprintf("%s is not path=value", quote(assignment)), Hint: "write it as --set kubernetes.version=1.37.2"}}
	}
	v := reflect.ValueOf(n).Elem()
	rest := path
	for v.Kind() == reflect.Struct {
		key, more, _ := strings.Cut(rest, ".")
		var names []string
		var next reflect.Value
		for _, f := range fields(v.Type()) {
			names = append(names, f.Key)
			if f.Key == key {
				next = v.FieldByIndex(f.Index)
			}
		}
		if !next.IsValid() {
			return fail("unknown key", setHint(path, key, names))
		}
		if next.Kind() == reflect.Struct && more == "" {
			return fail("names a group of values", "set one of "+strings.Join(under(next.Type(), path), ", "))
		}
		v, rest = next, more
	}
	node := setNode(v, rest, text)
	if node == nil {
		return fail("has no part "+quote(rest), "leave it away")
	}
	if v.Kind() == reflect.Slice && v.Type().Elem().Kind() != reflect.String {
		return fail("can not be set on the command line", "give it in a file with -f")
	}
	if v.Kind() == reflect.Map {
		path = strings.TrimSuffix(path, "."+rest)
	}
	d := decoder{file: pos.File, origins: n.origins}
	d.value(node, v, path)
	return d.found
}

// setNode returns the YAML node that text stands for where v is the target and
// rest what is left of the path, or nil if nothing may be left.
func setNode(v reflect.Value, rest, text string) *yaml.Node {
	scalar := func(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }
	switch {
	case v.Kind() == reflect.Map && rest != "":
		return &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{scalar(rest), scalar(text)}}
	case v.Kind() == reflect.Map:
		return scalar(text)
	case rest != "":
		return nil
	case v.Kind() == reflect.Bool && (text == "true" || text == "false"):
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: text}
	case v.Kind() == reflect.Slice:
		list := &yaml.Node{Kind: yaml.SequenceNode}
		for _, item := range commas(text) {
			list.Content = append(list.Content, scalar(item))
		}
		return list
	}
	return scalar(text)
}

// commas splits s at its commas, but for those after a backslash. Nothing gives no items.
func commas(s string) []string {
	if s == "" {
		return nil
	}
	var out []string
	var item strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == ',':
			item.WriteByte(',')
			i++
		case s[i] == ',':
			out = append(out, item.String())
			item.Reset()
		default:
			item.WriteByte(s[i])
		}
	}
	return append(out, item.String())
}

// setHint is the way out for a path whose part key is none of names.
func setHint(path, key string, names []string) string {
	if near := nearest(key, names); near != "" {
		return sprintf("did you mean %q?", near)
	}
	for _, part := range []string{key, path[strings.LastIndex(path, ".")+1:]} {
		for _, at := range keyPaths(reflect.TypeFor[Node](), "") {
			if at == part || strings.HasSuffix(at, "."+part) {
				return sprintf("did you mean %q?", at)
			}
		}
	}
	return "known here: " + strings.Join(names, ", ")
}

// under returns the paths of a struct's keys.
func under(t reflect.Type, path string) []string {
	var out []string
	for _, f := range fields(t) {
		out = append(out, join(path, f.Key))
	}
	return out
}
