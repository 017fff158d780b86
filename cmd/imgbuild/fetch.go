package main

import (
	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/builder"
)

// newFetchCmd is `imgbuild fetch`: the flow up to the cache.
func newFetchCmd() *cobra.Command {
	var o builder.Options
	cmd := &cobra.Command{
		Use:       "fetch master|worker",
		Short:     "Bring every pinned input into the cache, so that --offline builds",
		Args:      usageArgs(cobra.MaximumNArgs(1)),
		ValidArgs: []string{"master", "worker"},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.Role, err = roleArg(args); err != nil {
				return err
			}
			o.Report = newProgress(cmd.ErrOrStderr())
			return builder.Fetch(cmd.Context(), o)
		},
	}
	buildFlags(cmd, &o)
	return cmd
}
