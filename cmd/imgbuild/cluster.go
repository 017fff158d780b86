package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/node/identity"
)

// newClusterCmd is `imgbuild cluster`: the identity that nodes of one cluster share.
func newClusterCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "cluster", Short: "Make and show a cluster's identity", Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newClusterNewCmd(), newClusterShowCmd(), newClusterKubeconfigCmd())
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
			c, err := identity.New(args[0], endpoint, ttl)
			if err != nil {
				return fault.Wrap(fault.Usage, err)
			}
			if err := c.SetMasters(vip, masters); err != nil {
				return fault.Wrap(fault.Usage, err)
			}
			if err := c.Save(dir); err != nil {
				return fault.Wrap(fault.Usage, err)
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

func newClusterShowCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "show DIR",
		Short: "Show a cluster's identity, without its secrets",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := identity.Load(args[0])
			if err != nil {
				return fault.Wrap(fault.Spec, err)
			}
			hash, err := identity.CAHash(c.CACert)
			if err != nil {
				return err
			}
			public := map[string]string{"cluster": c.Name, "endpoint": c.Endpoint, "caHash": hash, "token": fmt.Sprint(c.Token), "tokenTTL": c.TokenTTL.String()}
			return show(cmd, public, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "cluster   %s\nendpoint  %s\nCA        %s\ntoken     %s, lives %s\n", c.Name, c.Endpoint, hash, c.Token, c.TokenTTL)
				return err
			})
		},
	}
}

func newClusterKubeconfigCmd() *cobra.Command {
	var out, user string
	cmd := &cobra.Command{
		Use:   "kubeconfig DIR",
		Short: "Mint an administrator's kubeconfig, without a cluster at hand",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := identity.Load(args[0])
			if err != nil {
				return fault.Wrap(fault.Spec, err)
			}
			text, err := c.Kubeconfig(user)
			if err != nil {
				return err
			}
			data := []byte(text.Reveal())
			if asJSON(cmd) { // kubectl reads either
				if data, err = yaml.YAMLToJSON(data); err != nil {
					return err
				}
			}
			if out == "" || out == "-" {
				_, err = cmd.OutOrStdout().Write(data)
				return err
			}
			return renameio.WriteFile(out, data, os.FileMode(0o600))
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "file to write, 0600 (default: standard output)")
	cmd.Flags().StringVar(&user, "user", "admin", "the user's name in the certificate")
	return cmd
}
