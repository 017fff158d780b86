package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/builder"
	"github.com/imgbuild/imgbuild/internal/fault"
	"github.com/imgbuild/imgbuild/internal/report"
)

// version is set by the release.
var version = "development"

func newRootCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "imgbuild",
		Version: version,
		Short:   "Build immutable Kubernetes nodes as disk images",
		Long: `imgbuild builds Kubernetes nodes as disk images that are ready to boot: containerd,
kubeadm, kernel settings, firewall and container images are in place, and the
first boot runs "kubeadm init" or "kubeadm join" by the node's role.

  imgbuild cluster new demo --endpoint 10.0.0.10:6443
  imgbuild master -o out
  imgbuild worker -o out`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noSuchCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.SuggestionsMinimumDistance = 2 // letters
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return fault.New(fault.Usage, "%w; see `imgbuild --help`", err)
	})
	addForm(cmd)
	help := cmd.HelpFunc()
	cmd.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		view := map[string]string{"command": cmd.CommandPath(), "help": cmp.Or(cmd.Long, cmd.Short) + "\n\n" + cmd.UsageString()}
		_ = show(cmd, view, func(io.Writer) error { help(cmd, args); return nil }) // execute hears what fails
	})
	cmd.SetVersionTemplate(`{{if eq (.Flag "output").Value.String "json"}}{"version": {{printf "%q" .Version}}}{{else}}imgbuild version {{.Version}}{{end}}` + "\n")
	cmd.AddCommand(newBuildCmd("master", "a control-plane node"), newBuildCmd("worker", "a worker node"),
		newLockCmd(), newFetchCmd(), newPlanCmd(), newCacheCmd(), newVerifyCmd(), newInspectCmd(), newDiffCmd(), newPushCmd(), newPullCmd(), newBootCmd(), newClusterCmd(), newStatusCmd(), newStampCmd(), newServeCmd(), newConvertCmd(), newSchemaCmd(), newCompletionCmd(), newManCmd())
	return cmd
}

// noSuchCommand refuses arguments of the root: they are commands that do not exist.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = fmt.Sprintf(", did you mean %q", near[0])
	}
	return fault.New(fault.Usage, "unknown command %q%s; see `imgbuild --help`", args[0], hint)
}

// buildFlags adds the flags that describe a node to cmd. What it returns calls do once the
// flags are read, for each architecture, with those that stand for a key of the spec among
// the settings.
func buildFlags(cmd *cobra.Command, o *builder.Options) (each func(do func(builder.Options) error) error) {
	var formats, arches []string
	var compress bool
	f := cmd.Flags()
	f.StringArrayVarP(&o.Files, "file", "f", nil, "spec file over the role's profile (repeatable; later files win)")
	f.StringArrayVar(&o.Sets, "set", nil, "one value over profile and files: kubernetes.version=1.37.2 (repeatable)")
	f.StringVarP(&o.Out, "out", "o", "out", "folder for the outputs and imgbuild.lock")
	f.StringVar(&o.LockFile, "lock", "", "lock file (default: imgbuild.lock in the output folder)")
	f.StringVar(&o.CacheDir, "cache", "", "cache folder (default: imgbuild below the XDG cache folder)")
	f.BoolVar(&o.Offline, "offline", false, "use no network: every input must be pinned and in the cache (see imgbuild fetch)")
	f.StringVar(&o.ToolDir, "tools", "", "folder of imgbuild's node programs (default: beside imgbuild)")
	f.StringSliceVar(&formats, "format", nil, "output formats: raw, qcow2, raw.zst, raw.gz, vmdk, ova, vhd, vhdx, gce, containerdisk (disks); iso (install medium); netboot (network boot); ignition, butane, cloud-init, nocloud, nocloud-fat, sysext, sysext-tar, sysext-images (hosts)")
	f.BoolVar(&compress, "compress", false, "write qcow2 with zstd clusters, a cloud-init config with gzip (output.compress in the spec)")
	f.StringVar(&o.Host, "base", "", "operating system of the host that reads a config: debian, flatcar, fcos (host.os in the spec)")
	f.StringSliceVar(&arches, "arch", nil, "processor architectures of the node, each built for itself: amd64, arm64 (arch in the spec; default amd64)")
	return func(do func(builder.Options) error) error {
		o.Report = newProgress(cmd.ErrOrStderr())
		if len(formats) > 0 {
			o.Sets = append(o.Sets, "output.formats="+strings.Join(formats, ","))
		}
		if compress {
			o.Sets = append(o.Sets, "output.compress=true")
		}
		if len(arches) == 0 {
			return do(*o)
		}
		return eachArch(*o, arches, do)
	}
}

// eachArch calls do for one architecture after the other, once all of them can be built
// beside each other.
func eachArch(o builder.Options, arches []string, do func(builder.Options) error) error {
	var all []builder.Options
	named := map[string]string{}
	for _, arch := range arches {
		one := o
		one.Sets = append(slices.Clone(o.Sets), "arch="+arch)
		all = append(all, one)
		if len(arches) == 1 {
			break
		}
		quiet := one
		quiet.Report = report.Discard{} // its warnings come with the build
		n, err := builder.Load(quiet)
		if err != nil {
			return err
		}
		if other := named[n.Output.Name]; other != "" {
			return fault.New(fault.Usage, "--arch: what is for %s and for %s would both be called %s: name each once, and leave output.name out, or take a folder for each", other, arch, n.Output.Name)
		}
		named[n.Output.Name] = arch
	}
	for i, one := range all {
		if len(all) > 1 {
			one.Report.Note("for " + arches[i] + ":")
		}
		if err := do(one); err != nil {
			return err
		}
	}
	return nil
}

// roleArg reads the role that a command's argument names.
func roleArg(args []string) (string, error) {
	if len(args) != 1 || (args[0] != "master" && args[0] != "worker") {
		return "", fault.New(fault.Usage, "name one role: master or worker")
	}
	return args[0], nil
}
