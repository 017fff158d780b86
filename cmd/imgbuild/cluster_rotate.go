package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/node/identity"
)

// newClusterRotateCmd is `imgbuild cluster rotate`.
func newClusterRotateCmd() *cobra.Command {
	var unused bool
	cmd := &cobra.Command{
		Use:   "rotate DIR --unused",
		Short: "Make an identity's authorities, keys and token anew, before a cluster uses it",
		Long: `Make an identity's authorities, keys and token anew: its files were seen by
somebody, and no cluster uses it yet. Name, endpoint and what you added to the
node configs stay; the old ones are kept in a folder beside.

A running cluster cannot take that: its nodes trust the old CA. There,
"cluster token" renews the token, "cluster kubeconfig" an operator's access,
"kubeadm certs renew" the masters' certificates; the CA itself is changed as
docs/cluster.md says. So this command asks for --unused, and refuses if the
endpoint answers with a certificate of the old CA.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return rotate(cmd, args[0], unused) },
	}
	cmd.Flags().BoolVar(&unused, "unused", false, "no cluster uses the identity, and no machine was given it")
	return cmd
}

// askTime is how long the endpoint gets to show that it lives.
const askTime = 5 * time.Second

func rotate(cmd *cobra.Command, dir string, unused bool) error {
	c, err := loadCluster(dir)
	if err != nil {
		return err
	}
	if !unused {
		return fault.New(fault.Usage, "rotate: machines that were given %s become strangers to it; if there are none, say --unused", dir)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), askTime)
	defer cancel()
	if inUse(ctx, c) {
		return fault.New(fault.Usage, "rotate: %s answers with a certificate of this identity: a cluster uses it; docs/cluster.md says what can be renewed there", c.Endpoint)
	}
	kept, err := c.Rotate(dir)
	if err != nil {
		return fault.Wrap(fault.Spec, err)
	}
	next, err := loadCluster(dir)
	if err != nil {
		return err
	}
	hash, err := identity.CAHash(next.CACert)
	if err != nil {
		return err
	}
	return show(cmd, map[string]string{"caHash": hash, "tokenID": next.TokenID(), "kept": kept}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "CA hash %s, token %s\nthe old node configs are in %s: remove them when nothing needs them\n", hash, next.TokenID(), kept)
		return err
	})
}

// inUse says whether an API with a certificate of the identity answers at its
// endpoint, whatever it answers.
func inUse(ctx context.Context, c *identity.Cluster) bool {
	api, err := (&reach{}).client(c)
	if err != nil {
		return false
	}
	return api.Answers(ctx)
}
