package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/builder"
	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/internal/fault"
)

// newLockCmd is `imgbuild lock`: the flow up to the lock file.
func newLockCmd() *cobra.Command {
	var o builder.Options
	var format string
	var formats *[]string
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
			if format != "text" && format != "json" {
				return fault.New(fault.Usage, "--output %s: text or json", format)
			}
			o.Sets = withFormats(o.Sets, *formats)
			o.Report = newProgress(cmd.ErrOrStderr())
			_, err = builder.Lock(cmd.Context(), o, func(changes []lock.Change) error { return printChanges(cmd, format, changes) })
			return err
		},
	}
	formats = buildFlags(cmd, &o)
	cmd.Flags().StringSliceVar(&o.Move, "update", nil, "what to pin anew: all, debian-trixie, kubelet, etcd, ... (without a name: all)")
	cmd.Flags().Lookup("update").NoOptDefVal = lock.All
	cmd.Flags().StringVar(&format, "output", "text", "text or json")
	return cmd
}

func printChanges(cmd *cobra.Command, format string, changes []lock.Change) error {
	w := cmd.OutOrStdout()
	if format == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", " ")
		return e.Encode(append([]lock.Change{}, changes...))
	}
	for _, c := range changes {
		if _, err := fmt.Fprintln(w, c); err != nil {
			return err
		}
	}
	if len(changes) == 0 {
		_, err := fmt.Fprintln(w, "nothing changes")
		return err
	}
	return nil
}
