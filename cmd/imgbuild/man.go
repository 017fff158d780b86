package main

import (
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/imgbuild/imgbuild/internal/repro"
)

// newManCmd is `imgbuild man`, for those who package imgbuild.
func newManCmd() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages of all commands into a folder",
		Hidden: true,
		Args:   usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil { // #nosec G301 -- manual pages are public
				return err
			}
			date := time.Unix(repro.DefaultEpoch, 0).UTC()
			root := cmd.Root()
			root.DisableAutoGenTag = true
			if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "imgbuild", Manual: "imgbuild", Date: &date}, args[0]); err != nil {
				return err
			}
			pages, err := filepath.Glob(filepath.Join(args[0], "imgbuild*.1"))
			if err != nil {
				return err
			}
			return show(cmd, pages, func(io.Writer) error { return nil })
		},
	}
}
