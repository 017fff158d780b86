package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/builder/contents"
	"github.com/imgbuild/imgbuild/internal/whole"
)

// newDiffCmd is `imgbuild diff`.
func newDiffCmd() *cobra.Command {
	var page string
	cmd := &cobra.Command{
		Use:   "diff BEFORE AFTER",
		Short: "Show what two images differ in",
		Long: `Show what two images differ in: packages, programs, units, settings, open ports, files.
Both are read as verify reads them, whatever their formats are.`,
		Args: usageArgs(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := contents.Compare(cmd.Context(), args[0], args[1])
			if err != nil {
				return unreadable(err)
			}
			if page != "" {
				if err := whole.Write(page, 0o644, func(w io.Writer) error { return d.WritePage(w, filepath.Base(args[0]), filepath.Base(args[1])) }); err != nil {
					return err
				}
				return wrote(cmd, page)
			}
			return show(cmd, d, func(w io.Writer) error { return printDiff(w, d) })
		},
	}
	cmd.Flags().StringVar(&page, "html", "", "write a page of one `file`")
	return cmd
}

func printDiff(w io.Writer, d *contents.Diff) error {
	if d.Empty() {
		_, err := fmt.Fprintln(w, "no difference")
		return err
	}
	for _, g := range d.Groups() {
		if len(g.Changes) == 0 {
			continue
		}
		if _, err := fmt.Fprintf(w, "%s\n", g.Name); err != nil {
			return err
		}
		for _, c := range g.Changes {
			sign, text := "~", c.Before+" → "+c.After
			switch {
			case c.Before == "":
				sign, text = "+", c.After
			case c.After == "":
				sign, text = "-", c.Before
			}
			if _, err := fmt.Fprintf(w, "  %s %s: %s\n", sign, c.What, text); err != nil {
				return err
			}
		}
	}
	return nil
}
