package spec

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// What a document may be at most. The deepest value of a Node lies 4 levels down.
const (
	MaxDocument = 1 << 20 // bytes
	maxDepth    = 16
	maxItems    = 1000 // of one list or mapping
)

// parse reads one YAML document into nodes. It returns a nil node for a document
// that is not well formed or holds what no Node needs: more than one document,
// anchors, aliases, tags, nesting without end. Nothing of it is decoded before that.
func parse(file string, data []byte) (*yaml.Node, Findings) {
	fail := func(line, column int, message, hint string) (*yaml.Node, Findings) {
		return nil, Findings{{Pos: Pos{file, line, column}, Message: message, Hint: hint}}
	}
	if len(data) > MaxDocument {
		return fail(0, 0, sprintf("the file has more than the %d bytes that are allowed", MaxDocument), "a node's description is short; large files belong in a package or base image")
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if i := firstBad(data); i >= 0 {
		line, column := position(data, i)
		return fail(line, column, sprintf("byte 0x%02x is not text", data[i]), "save the file as UTF-8 without control characters")
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, more yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return fail(1, 1, "the document is empty", sprintf("it begins with %q and %q", "apiVersion: "+APIVersion, "kind: "+Kind))
	} else if err != nil {
		line, message := syntaxError(err)
		return fail(line, 0, message, syntaxHint(message))
	}
	if err := decoder.Decode(&more); err == nil {
		return fail(more.Line, more.Column, "a second document begins here", "write one document per file and give -f once for each")
	} else if !errors.Is(err, io.EOF) {
		line, message := syntaxError(err)
		return fail(line, 0, message, syntaxHint(message))
	}
	root := document.Content[0]
	if found := unwanted(file, root, 1); len(found) > 0 {
		return nil, found
	}
	return root, nil
}

// firstBad returns the index of the first byte that is no part of valid, printable
// UTF-8 text with tabs and line ends, or -1.
func firstBad(data []byte) int {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		control := r < 0x20 && r != '\t' && r != '\n' && r != '\r' || r >= 0x7f && r < 0xa0
		if control || r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

// position returns the line and column, in characters, of the byte at index i.
func position(data []byte, i int) (line, column int) {
	before := data[:i]
	start := bytes.LastIndexByte(before, '\n') + 1
	return bytes.Count(before, []byte("\n")) + 1, utf8.RuneCount(before[start:]) + 1
}

var syntaxLine = regexp.MustCompile(`^yaml: (?:line ([0-9]+): )?(.*)$`)

// syntaxError returns the line and message of a YAML error. The library counts
// the lines of its parser's errors (not its scanner's) from 0 and leaves line 1 out.
func syntaxError(err error) (line int, message string) {
	m := syntaxLine.FindStringSubmatch(strings.SplitN(err.Error(), "\n", 2)[0])
	if m == nil {
		return 0, err.Error()
	}
	line, message = 1, m[2]
	if m[1] != "" {
		line, _ = strconv.Atoi(m[1])
		for _, of := range []string{"',' or ']'", "',' or '}'", "'-' indicator", "key", "node content", "<document start>"} {
			if message == "did not find expected "+of {
				line++
			}
		}
	}
	return line, message
}

// syntaxHint returns the way out of the YAML errors that people make.
func syntaxHint(message string) string {
	switch {
	case strings.Contains(message, "cannot start any token"):
		return "YAML indents with spaces, not tabs; a value that begins with % @ or ` goes in quotes"
	case strings.Contains(message, "mapping values are not allowed"):
		return `check the indentation; a value with ": " in it goes in quotes`
	case strings.Contains(message, "exceeded max depth"):
		return "a node needs 4 levels"
	case strings.Contains(message, "end of stream"), strings.Contains(message, "did not find expected"):
		return "check brackets, quotes and indentation near this line"
	}
	return ""
}

// unwanted returns the first thing in a well-formed document that no Node needs.
func unwanted(file string, n *yaml.Node, depth int) Findings {
	fail := func(message, hint string) Findings {
		return Findings{{Pos: Pos{file, n.Line, n.Column}, Message: message, Hint: hint}}
	}
	switch {
	case depth > maxDepth:
		return fail(sprintf("values are nested more than %d levels deep", maxDepth), "a node needs 4 levels")
	case n.Kind == yaml.SequenceNode && len(n.Content) > maxItems, n.Kind == yaml.MappingNode && len(n.Content) > 2*maxItems:
		return fail(sprintf("a list or mapping has more than %d entries", maxItems), "a node's description is short")
	case n.Kind == yaml.AliasNode:
		return fail(sprintf("alias %s is not accepted", quote("*"+n.Value)), "write the value out")
	case n.Anchor != "":
		return fail(sprintf("anchor %s is not accepted", quote("&"+n.Anchor)), "write the value out where it is needed")
	case n.Style&yaml.TaggedStyle != 0:
		return fail(sprintf("tag %s is not accepted", quote(n.Tag)), "leave it out; the key decides the type")
	}
	for _, child := range n.Content {
		if found := unwanted(file, child, depth+1); len(found) > 0 {
			return found
		}
	}
	return nil
}
