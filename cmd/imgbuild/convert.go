package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/builder"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/whole"
)

// newConvertCmd is `imgbuild convert`.
func newConvertCmd() *cobra.Command {
	var out string
	var partial bool
	cmd := &cobra.Command{
		Use:   "convert FILE",
		Short: "Make a spec of a Butane, Ignition or cloud-init config",
		Long: `Make a spec of a config that you have for another system: Butane, Ignition, or a
cloud-config. Its files, units, users and keys lie over the node as any spec does:

  imgbuild convert site.bu -o site.yaml
  imgbuild worker -f site.yaml

What a spec cannot say is listed with its line, and nothing is written; with
--partial the rest is.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := builder.Convert(args[0])
			if err != nil {
				return err
			}
			var lines []string
			for _, f := range c.Found {
				lines = append(lines, f.String())
			}
			if len(lines) > 0 && !partial {
				return fault.New(fault.Spec, "%s\n%d parts are not carried; mend them, or leave them out by --partial", strings.Join(lines, "\n"), len(lines))
			}
			for _, line := range lines {
				if _, err := fmt.Fprintf(cmd.ErrOrStderr(), "not carried: %s\n", line); err != nil {
					return err
				}
			}
			if out != "" {
				if err := whole.WriteFile(out, c.Spec, 0o644); err != nil { // it goes into an image: no secret
					return err
				}
				if !asJSON(cmd) {
					return nil
				}
			}
			return show(cmd, convertedView{c.Format, string(c.Spec), append([]string{}, lines...)}, func(w io.Writer) error {
				_, err := w.Write(c.Spec)
				return err
			})
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "`file` for the spec (default: standard output)")
	cmd.Flags().BoolVar(&partial, "partial", false, "write what can be carried, and list the rest")
	return cmd
}

// convertedView is the result as --output json shows it.
type convertedView struct {
	Format     string   `json:"format"`
	Spec       string   `json:"spec"` // YAML
	NotCarried []string `json:"notCarried"`
}
