package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/holdfast-go/holdfast"
)

func (a *app) showCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show who holds a lock",
		Long: `Show who holds a lock, since when, until when, with which fence, and how many wait. The
exit code is 1 when nobody holds it.`,
		Example:           "  holdfast show invoice:2026",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeName,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.withClient(func(ctx context.Context, c *holdfast.Client) error {
				info, err := c.Inspect(ctx, args[0])
				if err != nil {
					return err
				}
				return a.show(viewLock(info))
			})
		},
	}
}

func (a *app) show(v lockView) error {
	err := a.print(v, func(w io.Writer) {
		state := "free"
		if len(v.Holders) > 0 {
			state = "held"
		}
		rows := [][]string{{"name:", v.Name}, {"state:", state}}
		for _, h := range v.Holders {
			rows = append(rows, []string{"holder:", h.Owner}, []string{"  mode:", v.mode(h)},
				[]string{"  since:", clock(h.Since)}, []string{"  until:", clock(h.Until)}, []string{"  fence:", fmt.Sprint(h.Fence)})
		}
		table(w, append(rows, []string{"waiters:", v.waiters()}))
	})
	if err == nil && len(v.Holders) == 0 {
		return exitStatus(exitNotHeld)
	}
	return err
}

// completeName completes the names of locks that are held.
func (a *app) completeName(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if len(args) == 0 {
		_ = a.withClient(func(ctx context.Context, c *holdfast.Client) error {
			infos, err := c.List(ctx, prefix, 100)
			for _, info := range infos {
				names = append(names, info.Name)
			}
			return err // completion has nowhere to show it
		})
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
