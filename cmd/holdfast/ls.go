package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/holdfast-go/holdfast"
)

func (a *app) lsCommand() *cobra.Command {
	limit := holdfast.MaxList
	cmd := &cobra.Command{
		Use:   "ls [PREFIX]",
		Short: "List the locks that are held",
		Long: `List the locks that are held and begin with PREFIX, a line for each holder. Times are
those of the engine; a dash under UNTIL means until it is released.`,
		Example: "  holdfast ls\n  holdfast ls invoice: -o json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			prefix := ""
			if len(args) > 0 {
				prefix = args[0]
			}
			return a.withClient(func(ctx context.Context, c *holdfast.Client) error {
				return a.list(ctx, c, prefix, limit)
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", limit, "list at most so many")
	return cmd
}

func (a *app) list(ctx context.Context, c *holdfast.Client, prefix string, limit int) error {
	infos, err := c.List(ctx, prefix, limit)
	if err != nil {
		return err
	}
	if len(infos) == limit {
		a.warnf("there may be more than these %d: narrow the list down with a prefix", limit)
	}
	views := make([]lockView, 0, len(infos))
	for _, info := range infos {
		views = append(views, viewLock(info))
	}
	return a.print(views, func(w io.Writer) {
		rows := [][]string{heading}
		for _, v := range views {
			rows = append(rows, v.rows()...)
		}
		table(w, rows)
	})
}
