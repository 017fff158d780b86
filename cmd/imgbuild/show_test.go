package main

import (
	"strings"
	"testing"

	"github.com/imgbuild/imgbuild/builder"
	"github.com/imgbuild/imgbuild/builder/verify"
)

// TestComplain: each finding is one line, whatever the names in it are.
func TestComplain(t *testing.T) {
	r := &verify.Report{Findings: []verify.Finding{
		{Check: "modes", Path: "a\u0085b\nc.raw: good\x1b[2K", Message: "everyone may write it"},
		{Check: "setuid", Path: "d", Message: "is not\u2028on the list"},
	}}
	var out strings.Builder
	cmd := newRootCmd()
	cmd.SetErr(&out)
	complain(cmd, nil, builder.Complain("x\u2029.raw", r))
	want := `imgbuild: x\u2029.raw: modes: a\u0085b\nc.raw: good\x1b[2K: everyone may write it` + "\n" + `x\u2029.raw: setuid: d: is not\u2028on the list` + "\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
