package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/builder"
	"github.com/imgbuild/imgbuild/builder/registry"
)

// newBuildCmd is `imgbuild master` and `imgbuild worker`.
func newBuildCmd(role, what string) *cobra.Command {
	o := builder.Options{Role: role}
	var each func(func(builder.Options) error) error
	var reference string
	cmd := &cobra.Command{
		Use:   role,
		Short: "Build " + what,
		Long: fmt.Sprintf(`Build %s. Without a flag the role's profile says it all.

The outputs, NAME.manifest.json and imgbuild.lock appear in the output folder
when the build has succeeded and was verified, and not before.`, what),
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if reference != "" {
				if err := registry.Check(reference); err != nil { // before minutes are spent
					return err
				}
			}
			err := each(func(o builder.Options) error {
				result, err := builder.Build(cmd.Context(), o)
				if err != nil {
					return err
				}
				return show(cmd, result.Manifest, func(w io.Writer) error { return printResult(w, result) })
			})
			if err != nil || reference == "" {
				return err
			}
			return push(cmd, o.Out, reference)
		},
	}
	each = buildFlags(cmd, &o)
	cmd.Flags().StringVar(&reference, "push", "", "send what then lies in the output folder to an OCI registry under this `reference`, as imgbuild push does")
	cmd.Flags().StringVar(&o.Sign, "sign", "", "sign what is made with this private `key`: a PEM file (ECDSA or RSA), or PLUGIN://REFERENCE for one that a key service or token holds")
	cmd.Flags().StringVar(&o.JoinURL, "join-url", "", "hosts fetch their node config from this `URL`, which should live for a short time")
	cmd.Flags().StringVar(&o.InlineJoin, "inline-join", "", "put this worker's node config, a `file` with a token, into the configs for hosts, where whoever sees the provider's metadata can read it")
	return cmd
}

func printResult(w io.Writer, r *builder.Result) error {
	for _, out := range r.Manifest.Outputs {
		if _, err := fmt.Fprintf(w, "%s  sha256:%s  %d bytes\n", filepath.Join(r.Dir, out.File), out.SHA256, out.Size); err != nil {
			return err
		}
	}
	return nil
}
