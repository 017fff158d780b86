package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/node/identity"
	"github.com/imgbuild/imgbuild/internal/node/roster"
	"github.com/imgbuild/imgbuild/internal/repro"
)

// newStatusCmd is `imgbuild status`.
func newStatusCmd() *cobra.Command {
	var r reach
	cmd := &cobra.Command{
		Use:   "status [DIR]",
		Short: "Show how a running cluster's nodes stand",
		Long: `Show how a running cluster's nodes stand: Ready or what they wait for and since
when, how their first boot went, requests without an answer, and the tokens that
new machines can join with. It asks as the user of a kubeconfig, or, given the
folder of the cluster's identity, with a certificate minted for ten minutes:

  imgbuild status demo
  imgbuild status --kubeconfig ann.conf
  imgbuild status demo --server 127.0.0.1:6443   # through the forward of imgbuild boot`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (r.kubeconfig != "") {
				return fault.New(fault.Usage, "status: want a cluster's folder or --kubeconfig FILE, one of them")
			}
			var c *identity.Cluster
			if len(args) == 1 {
				var err error
				if c, err = loadCluster(args[0]); err != nil {
					return err
				}
			}
			api, err := r.client(c)
			if err != nil {
				return err
			}
			now, err := roster.Read(cmd.Context(), api)
			if err != nil {
				return err
			}
			now.Cluster, now.Server = api.Cluster, api.Server
			return show(cmd, now, func(w io.Writer) error { return now.Write(w, repro.Now()) })
		},
	}
	r.flags(cmd)
	return cmd
}
