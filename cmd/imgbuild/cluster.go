package main

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/node/identity"
)

// newClusterCmd is `imgbuild cluster`: the identity that nodes of one cluster share.
func newClusterCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "cluster", Short: "Make, show and renew a cluster's identity", Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newClusterNewCmd(), newClusterShowCmd(), newClusterTokenCmd(), newClusterKubeconfigCmd(), newClusterRotateCmd())
	return cmd
}

func newClusterNewCmd() *cobra.Command {
	var endpoint, dir string
	var ttl time.Duration
	var vip bool
	var masters []string
	cmd := &cobra.Command{
		Use:   "new NAME --endpoint HOST:PORT",
		Short: "Make an identity: authorities, service-account key, token, and a node config per role",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if dir == "" {
				dir = args[0]
			}
			if err := identity.CheckTokenTTL(ttl); err != nil {
				return fault.New(fault.Usage, "--token-ttl: %w", err)
			}
			c, err := identity.New(args[0], endpoint, ttl)
			if err != nil {
				return fault.Wrap(fault.Usage, err)
			}
			if err := c.SetMasters(vip, masters); err != nil {
				return fault.Wrap(fault.Usage, err)
			}
			if err := c.Save(dir); err != nil {
				return err
			}
			if host, _, _ := net.SplitHostPort(endpoint); net.ParseIP(host).IsLoopback() {
				if _, err := fmt.Fprintf(cmd.ErrOrStderr(), "%s is each machine's own address: no other machine can join\n", host); err != nil {
					return err
				}
			}
			first, join, worker := filepath.Join(dir, identity.MasterFile), filepath.Join(dir, identity.MasterJoinFile), filepath.Join(dir, identity.WorkerFile)
			return show(cmd, map[string]string{"master": first, "masterJoin": join, "worker": worker, "tokenTTL": ttl.String()}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s (the first master, one machine)\n%s (every other master)\n%s\nGive a machine one of them at boot; they are secret. The token ends %s after the first master's first boot.\n", first, join, worker, ttl)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "address of the API, HOST:PORT: the master's, a load balancer's or a DNS name")
	cmd.Flags().BoolVar(&vip, "vip", false, "the masters hold the endpoint's address among themselves; --masters lists them")
	cmd.Flags().StringSliceVar(&masters, "masters", nil, "addresses of all masters, with commas between (default: found by the cluster)")
	cmd.Flags().StringVar(&dir, "dir", "", "folder to make (default: NAME)")
	cmd.Flags().DurationVar(&ttl, "token-ttl", 24*time.Hour, "lifetime of the join token, from the first boot of the first master")
	return cmd
}

// loadCluster reads the identity in a folder.
func loadCluster(dir string) (*identity.Cluster, error) {
	c, err := identity.Load(dir)
	return c, fault.Wrap(fault.Spec, err)
}
