package main

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/builder"
	"github.com/imgbuild/imgbuild/builder/registry"
)

// newPushCmd is `imgbuild push`.
func newPushCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "push DIR|IMAGE REFERENCE",
		Short: "Send builds to an OCI registry",
		Long: `Send the builds that lie in a folder to an OCI registry: outputs, manifest, bills of
materials, statement, signatures and lock. With an image, only that output of its
build is sent.

  imgbuild push out registry.example/nodes:1.37.2
  imgbuild push out/worker.raw registry.example/nodes:1.37.2

Outputs travel in chunks, and only what the registry lacks is sent. The tag keeps
what others pushed to it, for other roles and architectures. Who you are is read
from the usual Docker config (docker login, podman login).`,
		Args: usageArgs(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error { return push(cmd, args[0], args[1]) },
	}
}

func push(cmd *cobra.Command, what, reference string) error {
	pushed, err := builder.Push(cmd.Context(), what, reference, registry.Options{Report: newProgress(cmd.ErrOrStderr())})
	if err != nil {
		return err
	}
	return show(cmd, pushed, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s: %s\n%d of %d blobs sent, %d of %d bytes\n", pushed.Reference, strings.Join(pushed.Builds, ", "),
			pushed.Moved, pushed.Blobs, pushed.MovedSize, pushed.Bytes)
		return err
	})
}

// newPullCmd is `imgbuild pull`.
func newPullCmd() *cobra.Command {
	var want registry.Wanted
	var out, cache string
	cmd := &cobra.Command{
		Use:   "pull REFERENCE",
		Short: "Bring builds from an OCI registry",
		Long: `Bring builds that imgbuild pushed to an OCI registry into a folder, as they were:
every file is checked against the manifest of its build, and appears whole or not
at all. What was fetched stays in the cache: a pull that broke off goes on there,
and of a new version only what changed is fetched.

  imgbuild pull registry.example/nodes:1.37.2 -o out
  imgbuild pull registry.example/nodes:1.37.2 -o out --role worker --arch arm64 --format raw

Who signed it, "imgbuild verify --key" says afterwards.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			pulled, err := builder.Pull(cmd.Context(), args[0], want, out, cache, registry.Options{Report: newProgress(cmd.ErrOrStderr())})
			if err != nil {
				return err
			}
			return show(cmd, pulled, func(w io.Writer) error {
				for _, p := range pulled {
					for _, file := range p.Outputs {
						if _, err := fmt.Fprintf(w, "%s  %s\n", filepath.Join(out, file), p.Digest); err != nil {
							return err
						}
					}
				}
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&out, "out", "o", "out", "folder for what is pulled")
	f.StringVar(&want.Role, "role", "", "only builds of this `role`: master or worker (default: all)")
	f.StringVar(&want.Arch, "arch", "", "only builds for this `architecture`: amd64 or arm64 (default: all)")
	f.StringSliceVar(&want.Formats, "format", nil, "only outputs in these formats (default: all that were pushed)")
	f.StringVar(&cache, "cache", "", "cache folder (default: imgbuild below the XDG cache folder)")
	return cmd
}
