package spec

import (
	"fmt"
	"strings"
)

// Severity says whether a finding stops the build.
type Severity int

// A finding is an Error unless it says otherwise.
const (
	Error Severity = iota
	Warning
)

// Pos is where a value was written. File is the file's name as the caller gave
// it, "profile master", "--set KEY", or "default" for what Load filled in. Line and
// Column start at 1; they are 0 where there is none.
type Pos struct {
	File   string
	Line   int
	Column int
}

// origins maps a path such as "firewall.allow[0]" to where its value was written.
type origins map[string]Pos

// at returns where the value at path was written, or else the innermost value
// around it.
func (o origins) at(path string) Pos {
	for path != "" {
		if p, ok := o[path]; ok {
			return p
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return Pos{}
}

// byUser reports whether the user wrote the value at path, not a profile or Load.
func (o origins) byUser(path string) bool {
	p, ok := o[path]
	return ok && p.File != fromDefault && !strings.HasPrefix(p.File, fromProfile)
}

// Finding is one thing that is wrong, or may be, in what was written.
type Finding struct {
	Severity Severity
	Pos
	Path    string // "kubernetes.version", "firewall.allow[0]"; empty for a file as a whole
	Message string // what is wrong, with the value
	Hint    string // the way out; may be empty
}

// String returns the finding on one line:
// `node.yaml:3:5: kubernetes.verison: unknown key; did you mean "version"?`
func (f Finding) String() string {
	var parts []string
	switch {
	case f.Line > 0 && f.Column > 0:
		parts = append(parts, fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column))
	case f.Line > 0:
		parts = append(parts, fmt.Sprintf("%s:%d", f.File, f.Line))
	case f.File != "":
		parts = append(parts, f.File)
	}
	if f.Path != "" && f.File != fromSet+f.Path {
		parts = append(parts, f.Path)
	}
	if f.Severity == Warning {
		parts = append(parts, "warning")
	}
	line := strings.Join(append(parts, f.Message), ": ")
	if f.Hint != "" {
		line += "; " + f.Hint
	}
	return line
}

// Findings are all findings of one Load or Validate, in the order of the sources.
type Findings []Finding

var _ error = Findings(nil)

// Error returns the findings, one per line.
func (fs Findings) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// Errors returns the findings that stop the build.
func (fs Findings) Errors() Findings { return fs.only(Error) }

// Warnings returns the findings that do not.
func (fs Findings) Warnings() Findings { return fs.only(Warning) }

// Err returns the findings that stop the build as one error, or nil if there are none.
func (fs Findings) Err() error {
	if bad := fs.Errors(); len(bad) > 0 {
		return bad
	}
	return nil
}

func (fs Findings) only(s Severity) Findings {
	var out Findings
	for _, f := range fs {
		if f.Severity == s {
			out = append(out, f)
		}
	}
	return out
}
