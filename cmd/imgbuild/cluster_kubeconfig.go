package main

import (
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/node/identity"
	"github.com/imgbuild/imgbuild/internal/whole"
)

// newClusterKubeconfigCmd is `imgbuild cluster kubeconfig`.
func newClusterKubeconfigCmd() *cobra.Command {
	var out string
	var who identity.Operator
	cmd := &cobra.Command{
		Use:   "kubeconfig DIR",
		Short: "Mint a kubeconfig, without a cluster at hand",
		Long: `Mint a kubeconfig, without a cluster at hand. Nothing takes a certificate back:
who shall have it for a day only gets one for a day (--ttl). A group other than
kubeadm's administrators may do what you bind to it:

  imgbuild cluster kubeconfig demo --user ann --group viewers --ttl 8h -o ann.conf
  kubectl create clusterrolebinding viewers --clusterrole view --group viewers`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := loadCluster(args[0])
			if err != nil {
				return err
			}
			text, err := c.Kubeconfig(who)
			if err != nil {
				return fault.Wrap(fault.Usage, err)
			}
			data := []byte(text.Reveal())
			if asJSON(cmd) { // kubectl reads either
				if data, err = yaml.YAMLToJSON(data); err != nil {
					return err
				}
			}
			if err := writeSecret(cmd, out, data); err != nil || out == "" || out == "-" {
				return err
			}
			return wrote(cmd, out)
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "file to write, 0600 (default: standard output)")
	cmd.Flags().StringVar(&who.User, "user", "admin", "the user's name in the certificate")
	cmd.Flags().StringArrayVar(&who.Groups, "group", []string{identity.Admins}, "a group of the user (repeatable)")
	cmd.Flags().DurationVar(&who.TTL, "ttl", 365*24*time.Hour, "lifetime of the certificate")
	return cmd
}

// writeSecret writes data to a file, 0600 and whole, or to standard output.
func writeSecret(cmd *cobra.Command, file string, data []byte) error {
	if file == "" || file == "-" {
		_, err := cmd.OutOrStdout().Write(data)
		return err
	}
	return whole.WriteFile(file, data, 0o600)
}
