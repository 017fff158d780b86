package config

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
)

var (
	findingPath = regexp.MustCompile(`^([A-Za-z.]+(\[\d+\])?)[:,]`) // what each finding of Validate begins with
	pathPart    = regexp.MustCompile(`[A-Za-z]+|\d+`)
)

// withLines puts the line of its key in front of each finding; one whose key is not there
// is left as it is.
func withLines(data []byte, err error) error {
	joined, ok := err.(interface{ Unwrap() []error }) //nolint:errorlint // what errors.Join gives, itself
	var doc yaml.Node
	if !ok || yaml.Unmarshal(data, &doc) != nil || len(doc.Content) == 0 {
		return err
	}
	var out []error
	for _, finding := range joined.Unwrap() {
		if m := findingPath.FindStringSubmatch(finding.Error()); m != nil {
			if line := lineOf(doc.Content[0], pathPart.FindAllString(m[1], -1)); line > 0 {
				finding = fmt.Errorf("line %d: %w", line, finding)
			}
		}
		out = append(out, finding)
	}
	return errors.Join(out...)
}

// lineOf is where a path of keys and indices is, as far as it goes; 0: nowhere.
func lineOf(n *yaml.Node, path []string) (line int) {
	for _, part := range path {
		var next *yaml.Node
		switch n.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == part {
					line, next = n.Content[i].Line, n.Content[i+1]
				}
			}
		case yaml.SequenceNode:
			if i, err := strconv.Atoi(part); err == nil && i < len(n.Content) {
				line, next = n.Content[i].Line, n.Content[i]
			}
		}
		if next == nil {
			return line
		}
		n = next
	}
	return line
}
