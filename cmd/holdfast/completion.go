package main

import (
	"bytes"
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion (bash | zsh | fish | powershell)",
		Short: "Print the script that completes commands in a shell",
		Example: `  source <(holdfast completion bash)
  holdfast completion zsh > "${fpath[1]}/_holdfast"
  holdfast completion fish > ~/.config/fish/completions/holdfast.fish`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.completion(cmd.Root(), args[0])
		},
	}
}

func (a *app) completion(root *cobra.Command, shell string) error {
	generate := map[string]func(*bytes.Buffer) error{
		"bash":       func(b *bytes.Buffer) error { return root.GenBashCompletionV2(b, true) },
		"zsh":        func(b *bytes.Buffer) error { return root.GenZshCompletion(b) },
		"fish":       func(b *bytes.Buffer) error { return root.GenFishCompletion(b, true) },
		"powershell": func(b *bytes.Buffer) error { return root.GenPowerShellCompletionWithDesc(b) },
	}
	var b bytes.Buffer
	err := generate[shell](&b)
	if err == nil {
		_, err = a.out.Write(b.Bytes())
	}
	if err != nil {
		return &failure{exitOutput, fmt.Errorf("output could not be written: %w", err), ""}
	}
	return nil
}
