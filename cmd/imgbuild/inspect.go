package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/builder/contents"
	"github.com/imgbuild/imgbuild/builder/how"
	"github.com/imgbuild/imgbuild/builder/verify"
	"github.com/imgbuild/imgbuild/internal/whole"
)

// newInspectCmd is `imgbuild inspect`: says what an image is, and how it becomes a machine.
func newInspectCmd() *cobra.Command {
	var platform, page string
	var sizes bool
	cmd := &cobra.Command{
		Use:   "inspect IMAGE",
		Short: "Show what is in an image, or how to run it on a platform",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if sizes || page != "" {
				return showSizes(cmd, args[0], page)
			}
			r, err := verify.Image(cmd.Context(), args[0])
			if err != nil {
				return unreadable(err)
			}
			if platform == "" {
				return show(cmd, r, func(w io.Writer) error { return printReport(w, r) })
			}
			text, err := how.Write(platform, how.Image{File: args[0], Format: r.Format, Role: strings.TrimPrefix(r.OS["IMAGE_ID"], "imgbuild-"), Size: r.Size})
			if err != nil {
				return err
			}
			return show(cmd, map[string]string{"platform": platform, "text": text}, func(w io.Writer) error {
				_, err := io.WriteString(w, text)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&sizes, "sizes", false, "show what takes the space, by package and program, and the largest files")
	cmd.Flags().StringVar(&page, "html", "", "write that as a page of one `file`")
	cmd.Flags().StringVar(&platform, "how", "", "write how the image becomes a machine on a `platform`: "+strings.Join(how.Names(), ", "))
	return cmd
}

// sizesView is what takes the space, as --output json shows it.
type sizesView struct {
	Parts   []*contents.Part `json:"parts"`
	Largest []fileView       `json:"largest"`
}

type fileView struct {
	Path  string `json:"path"`
	Of    string `json:"of"`
	Bytes int64  `json:"bytes"`
}

func showSizes(cmd *cobra.Command, image, page string) error {
	c, err := contents.Read(cmd.Context(), image)
	if err != nil {
		return unreadable(err)
	}
	if page != "" {
		if err := whole.Write(page, 0o644, c.WritePage); err != nil {
			return err
		}
		return wrote(cmd, page)
	}
	v := sizesView{Parts: c.Parts}
	for _, e := range c.Largest(20) {
		v.Largest = append(v.Largest, fileView{"/" + e.Path, e.Owner.Name, e.Size})
	}
	return show(cmd, v, func(w io.Writer) error {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, p := range v.Parts {
			fmt.Fprintf(t, "%12d\t%s\t%s\t%s\n", p.Bytes, p.Kind, p.Name, p.Version)
		}
		fmt.Fprintln(t, "\nlargest files")
		for _, f := range v.Largest {
			fmt.Fprintf(t, "%12d\t%s\t%s\n", f.Bytes, f.Of, f.Path)
		}
		return t.Flush()
	})
}

func printReport(w io.Writer, r *verify.Report) error {
	var b strings.Builder
	if r.Format == "sysext" {
		fmt.Fprintf(&b, "system extension, %d bytes\n", r.Size)
		for _, f := range r.Findings {
			fmt.Fprintf(&b, "finding   %s\n", f)
		}
		_, err := io.WriteString(w, b.String())
		return err
	}
	fmt.Fprintf(&b, "%s (%s %s), %s, %d bytes\n", r.OS["IMAGE_ID"], r.OS["PRETTY_NAME"], r.OS["IMAGE_VERSION"], r.Format, r.Size)
	for _, p := range r.Partitions {
		fmt.Fprintf(&b, "partition %-16s %s %10d bytes at %d\n", p.Name, p.UUID, p.Size, p.Start)
	}
	fmt.Fprintf(&b, "boot      %s, kernel %s\ncmdline   %s\nroot hash %s\n", r.UKI, r.Kernel, r.Cmdline, r.RootHash)
	if len(r.Node) > 0 {
		fmt.Fprintf(&b, "node      %s\n", strings.TrimSpace(string(r.Node)))
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "finding   %s\n", f)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
