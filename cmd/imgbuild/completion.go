package main

import (
	"bytes"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"
)

// newCompletionCmd is `imgbuild completion`; cobra's own succeeds for a shell that it does not know.
func newCompletionCmd() *cobra.Command {
	shells := map[string]func(root *cobra.Command, w io.Writer) error{
		"bash":       func(root *cobra.Command, w io.Writer) error { return root.GenBashCompletionV2(w, true) },
		"fish":       func(root *cobra.Command, w io.Writer) error { return root.GenFishCompletion(w, true) },
		"powershell": (*cobra.Command).GenPowerShellCompletionWithDesc,
		"zsh":        (*cobra.Command).GenZshCompletion,
	}
	return &cobra.Command{
		Use:   "completion bash|fish|powershell|zsh",
		Short: "Print the completions for a shell",
		Long: `Print the completions for a shell, which reads them where it begins:

  source <(imgbuild completion bash)       # in ~/.bashrc
  imgbuild completion fish | source        # in ~/.config/fish/config.fish
  source <(imgbuild completion zsh)        # in ~/.zshrc, after compinit`,
		Args:      usageArgs(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		ValidArgs: slices.Sorted(maps.Keys(shells)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var script bytes.Buffer
			if err := shells[args[0]](cmd.Root(), &script); err != nil {
				return err
			}
			return show(cmd, map[string]string{"shell": args[0], "script": script.String()}, func(w io.Writer) error {
				_, err := script.WriteTo(w)
				return err
			})
		},
	}
}
