package main

import (
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/builder"
	"github.com/imgbuild/imgbuild/builder/verify"
	"github.com/imgbuild/imgbuild/internal/fault"
)

// newVerifyCmd is `imgbuild verify`: says whether an image is good.
func newVerifyCmd() *cobra.Command {
	var o builder.Options
	var rebuild bool
	var keyFile string
	cmd := &cobra.Command{
		Use:   "verify IMAGE...",
		Short: "Read images back and say what is wrong with them",
		Long: `Read images back and say what is wrong with them: the partition table, the boot
loader, every block of the root, what lies in it, and kubeadm's preflight as far
as it does not depend on the machine. What lies beside an image, the manifest and
the documents that it lists, must fit it.

With --key all of that must be signed by the key. With --rebuild each image is
also built anew from its manifest, and must come out the same.`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := publicKey(keyFile)
			if err != nil {
				return err
			}
			reports := map[string]*verify.Report{}
			var wrong []error // of all files: one that is bad hides no other
			for _, file := range args {
				r, err := verify.Image(cmd.Context(), file)
				if err == nil {
					err = r.Beside(file, key)
				}
				if err == nil {
					reports[file] = r
					err = builder.Complain(filepath.Base(file), r)
				}
				wrong = append(wrong, unreadable(err))
			}
			if err := show(cmd, reports, func(w io.Writer) error { return printVerdicts(w, args, reports) }); err != nil {
				return err
			}
			if err := errors.Join(wrong...); err != nil || !rebuild {
				return err
			}
			o.Report = newProgress(cmd.ErrOrStderr())
			for _, file := range args {
				wrong = append(wrong, builder.Rebuild(cmd.Context(), o, file))
			}
			return errors.Join(wrong...)
		},
	}
	f := cmd.Flags()
	f.StringVar(&keyFile, "key", "", "public key, PEM: the image and all documents beside it must be signed by it")
	f.BoolVar(&rebuild, "rebuild", false, "build the image anew from its manifest and compare every byte")
	f.StringVar(&o.CacheDir, "cache", "", "with --rebuild: cache folder (default: imgbuild below the XDG cache folder)")
	f.BoolVar(&o.Offline, "offline", false, "with --rebuild: use no network")
	f.StringVar(&o.ToolDir, "tools", "", "with --rebuild: folder of imgbuild's node programs (default: beside imgbuild)")
	return cmd
}

// unreadable is an error about an image: that there is none is the command line's.
func unreadable(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(fault.Usage, err)
	}
	return fault.Wrap(fault.Verify, err)
}

func publicKey(file string) (crypto.PublicKey, error) {
	if file == "" {
		return nil, nil
	}
	key, err := verify.PublicKey(file)
	return key, fault.Wrap(fault.Usage, err)
}

func printVerdicts(w io.Writer, files []string, reports map[string]*verify.Report) error {
	for _, file := range files {
		if r := reports[file]; r != nil && len(r.Findings) == 0 {
			word := "good"
			if r.RootHash != "" {
				word += ", root hash " + r.RootHash
			}
			if _, err := fmt.Fprintf(w, "%s: %s\n", file, word); err != nil {
				return err
			}
		}
	}
	return nil
}

// usageArgs makes a wrong number of arguments a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return fault.New(fault.Usage, "%s: %w; see `%s --help`", cmd.Name(), err, cmd.CommandPath())
		}
		return nil
	}
}
