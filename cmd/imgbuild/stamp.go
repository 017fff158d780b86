package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/builder"
	"github.com/imgbuild/imgbuild/builder/stamp"
	"github.com/imgbuild/imgbuild/internal/fault"
)

// newStampCmd is `imgbuild stamp`.
func newStampCmd() *cobra.Command {
	var o builder.StampOptions
	var list, clear bool
	cmd := &cobra.Command{
		Use:   "stamp IMAGE",
		Short: "Put one machine's own settings into a copy of an image",
		Long: `Put what is one machine's own into a copy of an image, raw or qcow2: its node config,
host name, SSH keys and network. Nothing is built, and the verified root stays as it
is; the settings lie in the EFI system partition, as systemd credentials.

  imgbuild stamp out/worker.qcow2 -o w1.qcow2 --config cluster/worker.yaml --hostname w1
  imgbuild stamp out/worker.qcow2 -o copies --inventory machines.yaml
  imgbuild stamp out/worker.iso -o w1.iso --config cluster/worker.yaml --disk /dev/vda

An install medium (format iso) passes them on to the disk that it writes.

A copy holds secrets: it is for its owner alone (mode 0600), and for one machine.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Image = args[0]
			own := o.Config+o.Hostname+o.Disk != "" || len(o.SSHKeys)+len(o.Network) > 0
			switch {
			case own && o.Inventory != "":
				return fault.New(fault.Usage, "--inventory says what each machine gets: leave --config, --hostname, --ssh-key, --network and --disk to it")
			case list && clear || (list || clear) && (own || o.Inventory != ""):
				return fault.New(fault.Usage, "--show, --clear and what is stamped are three things: ask for one")
			case list:
				return showStamp(cmd, args[0])
			case clear:
				if o.Out == "" {
					o.Out = args[0]
				}
				if err := stamp.Write(cmd.Context(), o.Image, o.Out, stamp.Stamp{}); err != nil {
					return err
				}
				return wrote(cmd, o.Out)
			case o.Out == "":
				return fault.New(fault.Usage, "say where the copy goes: -o FILE")
			}
			made, err := builder.Stamp(cmd.Context(), o)
			if err != nil {
				return err
			}
			return show(cmd, made, func(w io.Writer) error {
				for _, file := range made {
					if _, err := fmt.Fprintln(w, file); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.Out, "out", "o", "", "`file` for the copy; with --inventory, the folder for the copies")
	f.StringVar(&o.Config, "config", "", "node config `file`, as `imgbuild cluster new` writes it")
	f.StringVar(&o.Hostname, "hostname", "", "the machine's name, in the node config")
	f.StringArrayVar(&o.SSHKeys, "ssh-key", nil, "public key `file` of who may log in, in the node config (repeatable)")
	f.StringArrayVar(&o.Network, "network", nil, "`file` for the network, as systemd.network(5) has it, .netdev or .link (repeatable)")
	f.StringVar(&o.Disk, "disk", "", "`device` of the machine that an install medium writes, and all of which is lost")
	f.BoolVar(&o.Again, "again", false, "let an install medium write a disk that has its image already")
	f.StringVar(&o.Inventory, "inventory", "", "`file` that lists machines: a copy for each of the image's role")
	f.BoolVar(&list, "show", false, "list what the image is stamped with")
	f.BoolVar(&clear, "clear", false, "take away what the image is stamped with")
	return cmd
}

func showStamp(cmd *cobra.Command, image string) error {
	carried, err := stamp.Show(image)
	if err != nil {
		return err
	}
	return show(cmd, carried, func(w io.Writer) error {
		if len(carried) == 0 {
			_, err := fmt.Fprintln(w, "it carries no stamp")
			return err
		}
		for _, c := range carried {
			if _, err := fmt.Fprintf(w, "%s\t%d bytes\n", c.Name, c.Size); err != nil {
				return err
			}
		}
		return nil
	})
}
