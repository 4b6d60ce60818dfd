package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-go/holdfast"
)

// breakFlags are the flags of break.
type breakFlags struct {
	fence  int64
	force  bool
	reason string
}

// breakRecord is what break prints: what was taken from whom, by whom and why.
type breakRecord struct {
	Broken lockView  `json:"broken"`
	Engine string    `json:"engine"`
	Fence  int64     `json:"expected_fence,omitempty"`
	Forced bool      `json:"forced"`
	By     string    `json:"by"`
	Host   string    `json:"host"`
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
}

func (a *app) breakCommand() *cobra.Command {
	var f breakFlags
	cmd := &cobra.Command{
		Use:   "break NAME (--fence N | --force) --reason TEXT",
		Short: "Take a lock from its holders",
		Long: `Take a lock from its holders, who are not asked: each finds out when it renews its lease
next, and may go on until then as if it held the lock. Only what checks fences is safe
from that.

--fence N breaks the lock only if somebody holds it with that fence, the one that
'holdfast show' printed before you decided. --force breaks it whoever holds it by now.
The exit code is 1 when nobody holds it, or not with that fence.`,
		Example: "  holdfast break invoice:2026 --fence 1764000000000000 --reason 'host is down'",
		Args:    cobra.ExactArgs(1),

		ValidArgsFunction: a.completeName,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd.Flags().Changed("fence")); err != nil {
				return err
			}
			return a.withClient(func(ctx context.Context, c *holdfast.Client) error {
				return a.breakLock(ctx, c, args[0], f)
			})
		},
	}
	cmd.Flags().Int64Var(&f.fence, "fence", 0, "break it only if it is held with this fence")
	cmd.Flags().BoolVar(&f.force, "force", false, "break it whoever holds it")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for the record (required)")
	return cmd
}

func (f breakFlags) check(fenceGiven bool) error {
	switch {
	case fenceGiven == f.force:
		return usagef("'holdfast show' prints the fence: --fence breaks that holder only, --force whoever holds it",
			"give either --fence N or --force")
	case fenceGiven && f.fence <= 0:
		return usagef("", "--fence is %d: fences are positive", f.fence)
	case f.reason == "":
		return usagef("add --reason TEXT: it goes into the record of the break", "a break needs a reason")
	}
	return nil
}

func (a *app) breakLock(ctx context.Context, c *holdfast.Client, name string, f breakFlags) error {
	info, err := c.Break(ctx, name, holdfast.Break{Fence: f.fence, Reason: f.reason})
	if err != nil {
		return err
	}
	u, _ := a.engineURL()
	host, _ := os.Hostname()
	r := breakRecord{
		Broken: viewLock(info), Engine: c.Capabilities().Engine, Fence: f.fence, Forced: f.force,
		By: a.ownerLabel(u), Host: host, At: time.Now().UTC(), Reason: f.reason,
	}
	return a.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "broke %s\n", printable(name))
		rows := [][]string{}
		for _, h := range r.Broken.Holders {
			rows = append(rows, []string{"  from:", fmt.Sprintf("%s (%s, fence %d, since %s)", h.Owner, r.Broken.mode(h), h.Fence, clock(h.Since))})
		}
		table(w, append(rows, []string{"  by:", r.By}, []string{"  at:", clock(r.At)}, []string{"  reason:", r.Reason}))
	})
}
