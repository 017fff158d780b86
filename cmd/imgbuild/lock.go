package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/builder"
)

// newLockCmd is `imgbuild lock`: the flow up to the lock file.
func newLockCmd() *cobra.Command {
	o := builder.Options{Update: true}
	var formats *[]string
	cmd := &cobra.Command{
		Use:       "lock master|worker",
		Short:     "Pin every input of a node, with its digest, in imgbuild.lock",
		Args:      usageArgs(cobra.MaximumNArgs(1)),
		ValidArgs: []string{"master", "worker"},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.Role, err = roleArg(args); err != nil {
				return err
			}
			o.Sets = withFormats(o.Sets, *formats)
			o.Report = newProgress(cmd.ErrOrStderr())
			locked, err := builder.Lock(cmd.Context(), o)
			if err != nil {
				return err
			}
			for _, p := range locked.Nodes[o.Role].Pins {
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s %s %s %s\n", p.Kind, p.Name, p.Version, p.Source, p.Digest); err != nil {
					return err
				}
			}
			return nil
		},
	}
	formats = buildFlags(cmd, &o)
	return cmd
}
