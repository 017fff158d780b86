package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/node/identity"
)

// newClusterShowCmd is `imgbuild cluster show`.
func newClusterShowCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "show DIR",
		Short: "Show a cluster's identity, without its secrets",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := loadCluster(args[0])
			if err != nil {
				return err
			}
			d, err := c.Describe(args[0])
			if err != nil {
				return fault.Wrap(fault.Spec, err)
			}
			return show(cmd, d, func(w io.Writer) error { return writeDescription(w, d) })
		},
	}
}

func writeDescription(out io.Writer, d identity.Description) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	life := d.TokenTTL
	if life == "0s" {
		life = "for ever"
	}
	fmt.Fprintf(w, "cluster\t%s\nendpoint\t%s\nCA hash\t%s\ntoken\t%s, lives %s\n", d.Cluster, d.Endpoint, d.CAHash, d.TokenID, life)
	for _, a := range d.Authorities {
		fmt.Fprintf(w, "CA\t%s: %s, %s to %s\n\t%s\n", a.Name, a.Subject, a.NotBefore.Format(time.DateOnly), a.NotAfter.Format(time.DateOnly), a.Fingerprint)
	}
	for _, f := range d.Files {
		fmt.Fprintf(w, "file\t%s: %s, may %s\n", f.Path, f.Role, f.May)
		if f.Mode != "0600" {
			fmt.Fprintf(w, "\tis open to others (%s): chmod 600 %s\n", f.Mode, f.Path)
		}
	}
	return w.Flush()
}
