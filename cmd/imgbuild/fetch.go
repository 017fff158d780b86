package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/builder"
)

// newFetchCmd is `imgbuild fetch`: the flow up to the cache.
func newFetchCmd() *cobra.Command {
	var o builder.Options
	var each func(func(builder.Options) error) error
	cmd := &cobra.Command{
		Use:       "fetch master|worker",
		Short:     "Bring every pinned input into the cache, so that --offline builds",
		Args:      usageArgs(cobra.MaximumNArgs(1)),
		ValidArgs: []string{"master", "worker"},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.Role, err = roleArg(args); err != nil {
				return err
			}
			return each(func(o builder.Options) error {
				pins, err := builder.Fetch(cmd.Context(), o)
				if err != nil {
					return err
				}
				return show(cmd, pins, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "%d inputs of the %s are in the cache\n", len(pins), o.Role)
					return err
				})
			})
		},
	}
	each = buildFlags(cmd, &o)
	return cmd
}
