package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/kubeapi"
	"github.com/imgbuild/imgbuild/internal/node/identity"
)

// tokenOptions are `imgbuild cluster token`'s flags.
type tokenOptions struct {
	ttl     time.Duration
	out     string
	offline bool
	reach   reach
}

// newClusterTokenCmd is `imgbuild cluster token`.
func newClusterTokenCmd() *cobra.Command {
	var o tokenOptions
	cmd := &cobra.Command{
		Use:   "token DIR",
		Short: "Give a cluster a new join token",
		Long: `Give a cluster a new join token: the running cluster is told, then every node
config in the folder gets it, all of them or none. Machines that wait with an old
token take a new node config from a seed disk without a reboot.

Where the cluster cannot be reached from here, -o writes the Secret instead:

  imgbuild cluster token demo -o - | kubectl apply -f -

The old token works until its own time is over.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return newToken(cmd, args[0], o) },
	}
	f := cmd.Flags()
	f.DurationVar(&o.ttl, "ttl", 24*time.Hour, "lifetime of the token from now on; 0 never ends")
	f.StringVarP(&o.out, "out", "o", "", "write the Secret for `kubectl apply -f` to this file (-: standard output), and ask no cluster")
	f.BoolVar(&o.offline, "offline", false, "only the folder: its first master has not booted yet and will make the token")
	o.reach.flags(cmd)
	return cmd
}

func newToken(cmd *cobra.Command, dir string, o tokenOptions) error {
	if err := identity.CheckTokenTTL(o.ttl); err != nil {
		return fault.New(fault.Usage, "--ttl: %w", err)
	}
	if o.offline && (o.out != "" || o.reach != reach{}) || o.out != "" && o.reach != (reach{}) {
		return fault.New(fault.Usage, "--offline, --out and a way to the cluster (--kubeconfig, --server) exclude each other")
	}
	c, err := loadCluster(dir)
	if err != nil {
		return err
	}
	next := *c
	next.NewToken(o.ttl)
	secret, err := next.TokenSecret()
	if err != nil {
		return err
	}
	switch {
	case o.offline:
	case o.out != "":
		err = writeSecret(cmd, o.out, []byte(secret.Reveal()))
	default:
		err = tellCluster(cmd.Context(), c, o.reach, []byte(secret.Reveal()))
	}
	if err != nil {
		return err
	}
	if err := c.Update(dir, &next); err != nil {
		return fault.Wrap(fault.Spec, err)
	}
	if o.out == "-" {
		return nil // the Secret is the result
	}
	result := map[string]string{"tokenID": next.TokenID(), "tokenTTL": o.ttl.String(), "was": c.TokenID()}
	return show(cmd, result, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "token %s, lives %s; the node configs in %s have it\n", next.TokenID(), life(o.ttl), dir)
		if err == nil && !o.offline {
			_, err = fmt.Fprintf(w, "to end the old one now: kubectl -n kube-system delete secret bootstrap-token-%s\n", c.TokenID())
		}
		return err
	})
}

func life(ttl time.Duration) string {
	if ttl == 0 {
		return "for ever"
	}
	return ttl.String()
}

// tellCluster makes the token known. Where that fails, nothing has changed.
func tellCluster(ctx context.Context, c *identity.Cluster, r reach, secret []byte) error {
	api, err := r.client(c)
	if err == nil && strings.TrimSpace(string(api.CA)) != strings.TrimSpace(c.CACert) {
		return fault.New(fault.Trust, "--kubeconfig %s is another cluster's: its CA is not the one of %s; nothing was sent", r.kubeconfig, c.Name)
	}
	if err == nil {
		err = api.Create(ctx, "/api/v1/namespaces/kube-system/secrets", secret)
	}
	if fault.KindOf(err) == fault.Unreachable {
		err = fmt.Errorf("%w. Nothing was changed; if the cluster has not booted yet: --offline; if it is reached elsewhere: -o", err)
	}
	return err
}

// reach is how a running cluster is asked.
type reach struct{ kubeconfig, server string }

func (r *reach) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&r.kubeconfig, "kubeconfig", "", "kubeconfig to ask the cluster with (default: one minted for this moment)")
	cmd.Flags().StringVar(&r.server, "server", "", "HOST:PORT to reach the API at, in place of the endpoint, such as 127.0.0.1:6443")
}

// operatorLife is that of the certificate that is minted for one command.
const operatorLife = 10 * time.Minute

// client asks with the kubeconfig that was named, or mints one; c may be nil if one was.
func (r *reach) client(c *identity.Cluster) (*kubeapi.Client, error) {
	o := kubeapi.Options{Server: r.server}
	if r.kubeconfig != "" {
		data, err := os.ReadFile(r.kubeconfig)
		if err != nil {
			return nil, fault.New(fault.Usage, "--kubeconfig: %w", err)
		}
		return kubeapi.New(data, o)
	}
	if c == nil {
		return nil, errors.New("neither a kubeconfig nor an identity")
	}
	text, err := c.Kubeconfig(identity.Operator{User: "imgbuild", Groups: []string{identity.Admins}, TTL: operatorLife})
	if err != nil {
		return nil, err
	}
	return kubeapi.New([]byte(text.Reveal()), o)
}
