package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/imgbuild/imgbuild/builder"
	"github.com/imgbuild/imgbuild/builder/lock"
	"github.com/imgbuild/imgbuild/builder/plan"
)

// newPlanCmd is `imgbuild plan`: the flow up to the plan, shown and not built.
func newPlanCmd() *cobra.Command {
	var o builder.Options
	var each func(func(builder.Options) error) error
	cmd := &cobra.Command{
		Use:       "plan master|worker",
		Short:     "Show what would be built, without building",
		Args:      usageArgs(cobra.MaximumNArgs(1)),
		ValidArgs: []string{"master", "worker"},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.Role, err = roleArg(args); err != nil {
				return err
			}
			return each(func(o builder.Options) error {
				p, err := builder.Plan(cmd.Context(), o)
				if err != nil {
					return err
				}
				if asJSON(cmd) { // the plan's own, stable spelling
					_, err = cmd.OutOrStdout().Write(p.JSON())
					return err
				}
				return printPlan(cmd.OutOrStdout(), p)
			})
		},
	}
	each = buildFlags(cmd, &o)
	return cmd
}

func printPlan(w io.Writer, p *plan.Plan) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s, Kubernetes %s, id %s\n", p.Role, p.Arch, p.Spec.Kubernetes.Version, p.ID[:12])
	count := map[lock.Kind]int{}
	for _, in := range p.Inputs {
		count[in.Kind]++
	}
	fmt.Fprintf(&b, "inputs: %d of the base %s, %d parts, %d images\n", count[lock.KindBase], p.Spec.Base.Name, count[lock.KindPart], count[lock.KindImage])
	for _, in := range p.Inputs {
		if in.Kind != lock.KindBase {
			fmt.Fprintf(&b, "  %-6s %s %s (%s)\n", in.Kind, in.Name, in.Version, in.Source)
		}
	}
	fmt.Fprintf(&b, "components: %s\n", strings.Join(p.Components, " "))
	fmt.Fprintf(&b, "files: %d, units enabled: %d, masked: %d\n", len(p.Files), len(p.Units.Enable), len(p.Units.Mask))
	for _, port := range p.Ports {
		if port.First == 0 {
			fmt.Fprintf(&b, "  open IP protocol %s: %s\n", port.Proto, port.Why)
			continue
		}
		fmt.Fprintf(&b, "  open %s %d-%d: %s\n", port.Proto, port.First, port.Last, port.Why)
	}
	fmt.Fprintf(&b, "kernel command line: roothash=… %s\n", strings.Join(p.Cmdline, " "))
	for _, out := range p.Outputs {
		fmt.Fprintf(&b, "output: %s\n", out.File)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
