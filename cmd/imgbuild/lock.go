package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/builder"
	"github.com/imgbuild/imgbuild/builder/lock"
)

// newLockCmd is `imgbuild lock`: the flow up to the lock file.
func newLockCmd() *cobra.Command {
	var o builder.Options
	var each func(func(builder.Options) error) error
	cmd := &cobra.Command{
		Use:   "lock master|worker",
		Short: "Pin every input of a node, with its digest, in imgbuild.lock",
		Long: `Pin every input of a node, with its digest, in imgbuild.lock. What is pinned
already stays; --update moves it, all or by name, and what changes is shown
before it is written:

  imgbuild lock master --update                    # everything, to the newest
  imgbuild lock master --update=debian-trixie,etcd # the base's packages, and one image`,
		Args:      usageArgs(cobra.MaximumNArgs(1)),
		ValidArgs: []string{"master", "worker"},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.Role, err = roleArg(args); err != nil {
				return err
			}
			return each(func(o builder.Options) error {
				_, err := builder.Lock(cmd.Context(), o, func(changes []lock.Change) error { return printChanges(cmd, changes) })
				return err
			})
		},
	}
	each = buildFlags(cmd, &o)
	cmd.Flags().StringSliceVar(&o.Move, "update", nil, "what to pin anew: all, debian-trixie, kubelet, etcd, ... (without a name: all)")
	cmd.Flags().Lookup("update").NoOptDefVal = lock.All
	return cmd
}

func printChanges(cmd *cobra.Command, changes []lock.Change) error {
	return show(cmd, append([]lock.Change{}, changes...), func(w io.Writer) error {
		var b strings.Builder
		for _, c := range changes {
			fmt.Fprintln(&b, c)
		}
		if len(changes) == 0 {
			b.WriteString("nothing changes\n")
		}
		_, err := io.WriteString(w, b.String())
		return err
	})
}
