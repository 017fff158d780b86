package spec

import (
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// field is one key of a struct, embedded ones included.
type field struct {
	Key   string
	Index []int
	Type  reflect.Type
}

// fields returns the keys that a struct has in a document, in its own order.
func fields(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			for _, inner := range fields(f.Type) {
				inner.Index = append([]int{i}, inner.Index...)
				out = append(out, inner)
			}
			continue
		}
		if key, _, _ := strings.Cut(f.Tag.Get("json"), ","); key != "" {
			out = append(out, field{key, f.Index, f.Type})
		}
	}
	return out
}

// maxFindings is how many findings of one document are worth showing.
const maxFindings = 100

// decoder lays one document over a node. What is wrong becomes a finding and
// leaves the value as it was, so that one run finds everything.
type decoder struct {
	file    string
	origins origins
	found   Findings
}

func (d *decoder) fail(n *yaml.Node, path, message, hint string) {
	f := Finding{Pos: Pos{d.file, n.Line, n.Column}, Path: path, Message: message, Hint: hint}
	switch {
	case len(d.found) == maxFindings:
		f = Finding{Pos: f.Pos, Message: sprintf("there is more; only the first %d findings are shown", maxFindings)}
	case len(d.found) > maxFindings:
		return
	}
	d.found = append(d.found, f)
}

// value decodes n into v, which is of one of the kinds that a Node is made of.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Struct:
		d.mapping(n, v, path)
	case reflect.Map:
		d.texts(n, v, path)
	case reflect.Slice:
		d.list(n, v, path)
	case reflect.Bool:
		if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
			d.fail(n, path, "got "+describe(n)+", want true or false", nothingHint(n))
			return
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
		d.note(n, path)
	case reflect.Int:
		number, err := strconv.ParseInt(n.Value, 10, 32)
		if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || err != nil {
			d.fail(n, path, "got "+describe(n)+", want a number", nothingHint(n))
			return
		}
		v.SetInt(number)
		d.note(n, path)
	default:
		if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
			d.fail(n, path, "got "+describe(n)+", want text", quoteHint(n))
			return
		}
		if r := rules[ruleKey(path)]; n.Value == "" && (r.Pattern != "" || len(r.Enum) > 0) {
			d.fail(n, path, "empty", "give it a value or remove the key")
			return
		}
		v.SetString(n.Value)
		d.note(n, path)
	}
}

func (d *decoder) note(n *yaml.Node, path string) { d.origins[path] = Pos{d.file, n.Line, n.Column} }

// mapping decodes a struct.
func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	known := fields(v.Type())
	if path != "" {
		d.note(n, path)
	}
	d.pairs(n, path, func(key, val *yaml.Node, at string) {
		i := slices.IndexFunc(known, func(f field) bool { return f.Key == key.Value })
		if i < 0 {
			d.fail(key, at, "unknown key", d.nearKey(key.Value, known))
			return
		}
		d.value(val, v.FieldByIndex(known[i].Index), at)
	})
}

// texts decodes a map of texts; numbers are taken as they are written. Its keys
// are laid over those that are there.
func (d *decoder) texts(n *yaml.Node, v reflect.Value, path string) {
	out := reflect.MakeMap(v.Type())
	for it := v.MapRange(); it.Next(); {
		out.SetMapIndex(it.Key(), it.Value())
	}
	d.pairs(n, path, func(key, val *yaml.Node, at string) {
		if val.Kind != yaml.ScalarNode || val.Tag != "!!str" && !wholeNumber.MatchString(val.Value) {
			d.fail(val, at, "got "+describe(val)+", want text or a whole number", quoteHint(val))
			return
		}
		if val.Value == "" {
			d.fail(val, at, "empty", "give it a value or remove the key")
			return
		}
		out.SetMapIndex(reflect.ValueOf(key.Value), reflect.ValueOf(val.Value))
		d.note(val, at)
	})
	v.Set(out)
}

var wholeNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

// pairs calls each for every key and value of a mapping, but for duplicates.
func (d *decoder) pairs(n *yaml.Node, path string, each func(key, val *yaml.Node, at string)) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "got "+describe(n)+", want keys and values", nothingHint(n))
		return
	}
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || !oneLine(key.Value) {
			d.fail(key, path, "a key must be one short line of text", "")
			continue
		}
		at := join(path, key.Value)
		if line, twice := first[key.Value]; twice {
			d.fail(key, at, sprintf("the key is there twice, first on line %d", line), "remove one of them")
			continue
		}
		first[key.Value] = key.Line
		each(key, val, at)
	}
}

// list decodes a list; it takes the place of the one that was there.
func (d *decoder) list(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.fail(n, path, "got "+describe(n)+", want a list", listHint(n))
		return
	}
	for old := range d.origins {
		if strings.HasPrefix(old, path+"[") {
			delete(d.origins, old)
		}
	}
	d.note(n, path)
	out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		d.value(item, out.Index(i), sprintf("%s[%d]", path, i))
	}
	v.Set(out)
}

// nearKey returns the hint for an unknown key: a near one here, or the same one elsewhere.
func (d *decoder) nearKey(key string, known []field) string {
	var names []string
	for _, f := range known {
		names = append(names, f.Key)
	}
	if near := nearest(key, names); near != "" {
		return sprintf("did you mean %q?", near)
	}
	for _, path := range keyPaths(reflect.TypeFor[Node](), "") {
		if strings.HasSuffix(path, "."+key) {
			return sprintf("did you mean %q?", path)
		}
	}
	return "known here: " + strings.Join(names, ", ")
}

// keyPaths returns the path of every key that is no list's item, outer ones first.
func keyPaths(t reflect.Type, path string) []string {
	var here, below []string
	for _, f := range fields(t) {
		at := join(path, f.Key)
		here = append(here, at)
		if f.Type.Kind() == reflect.Struct {
			below = append(below, keyPaths(f.Type, at)...)
		}
	}
	return append(here, below...)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// describe names what stands in the document, for "got …".
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "keys and values"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "nothing"
	case n.Tag == "!!int", n.Tag == "!!float":
		return "the number " + strings.Trim(quote(n.Value), `"`)
	case n.Tag == "!!bool":
		return n.Value
	case n.Tag == "!!timestamp":
		return "the date " + strings.Trim(quote(n.Value), `"`)
	}
	return "the text " + quote(n.Value)
}

// quoteHint is the way out for a scalar that YAML does not read as text.
func quoteHint(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return nothingHint(n)
	}
	return "write it in quotes: " + quote(n.Value)
}

// nothingHint is the way out where a key stands without a value.
func nothingHint(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return "give it a value or remove the key"
	}
	return ""
}

func listHint(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return nothingHint(n)
	}
	return sprintf("write it as [%s]", quote(n.Value))
}
