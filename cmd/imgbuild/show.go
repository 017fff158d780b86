package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/internal/fault"
)

// form is how results and errors are printed: "text" for people, "json" for
// programs. It is the value of --output, a flag that every command has.
type form string

// String implements pflag.Value.
func (f *form) String() string { return string(*f) }

// Type implements pflag.Value; it is the word in the help.
func (f *form) Type() string { return "text|json" }

// Set implements pflag.Value.
func (f *form) Set(s string) error {
	if s != "text" && s != "json" {
		return errors.New("text or json")
	}
	*f = form(s)
	return nil
}

func addForm(cmd *cobra.Command) {
	f := form("text")
	cmd.PersistentFlags().Var(&f, "output", "how results, and errors, are printed")
}

func asJSON(cmd *cobra.Command) bool { return cmd.Flag("output").Value.String() == "json" }

// show prints a command's result to standard output: v as JSON, or what text writes.
func show(cmd *cobra.Command, v any, text func(io.Writer) error) error {
	if asJSON(cmd) {
		return encode(cmd.OutOrStdout(), v)
	}
	return text(cmd.OutOrStdout())
}

// wrote says, in JSON alone, which file a command wrote: a person named it.
func wrote(cmd *cobra.Command, file string) error {
	return show(cmd, map[string]string{"file": file}, func(io.Writer) error { return nil })
}

// wantsJSON looks for --output json where cobra stopped before it, at a flag that it does
// not know.
func wantsJSON(args []string) bool {
	for i, a := range args {
		if a == "--output=json" || a == "--output" && i+1 < len(args) && args[i+1] == "json" {
			return true
		}
	}
	return false
}

// complain prints the error that ends the command to standard error.
func complain(cmd *cobra.Command, args []string, err error) {
	kind := fault.KindOf(err)
	if !asJSON(cmd) && !wantsJSON(args) {
		fmt.Fprintln(cmd.ErrOrStderr(), "imgbuild:", err)
		return
	}
	_ = encode(cmd.ErrOrStderr(), map[string]any{"error": err.Error(), "kind": kind, "exitCode": kind.ExitCode()}) // there is nobody left to tell
}

func encode(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
