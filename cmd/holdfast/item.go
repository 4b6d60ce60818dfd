package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-go/holdfast"
)

// itemView is what item prints in JSON. Its field names are part of the interface.
type itemView struct {
	Name    string  `json:"name"`
	Version int64   `json:"version"`
	TTL     float64 `json:"ttl_seconds,omitempty"`
	Data    string  `json:"data"` // bytes that are not UTF-8 are replaced
}

func (a *app) itemCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "item",
		Short: "Read and change small values that processes share",
		Long: `Read and change small values that processes share. Every value has a version: a change that
names the version it was made from is refused when somebody else made one since.`,
	}
	cmd.AddCommand(a.itemGetCommand(), a.itemSetCommand(), a.itemLockCommand())
	return cmd
}

func (a *app) itemGetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "get NAME",
		Short: "Print an item's data, as it is",
		Long:  "Print an item's data, as it is. The exit code is 1 when nothing is stored.",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.withClient(func(ctx context.Context, c *holdfast.Client) error {
				v, err := c.Item(args[0]).Get(ctx)
				if err != nil {
					return err
				}
				if v.Version == 0 {
					return exitStatus(exitNotHeld)
				}
				return a.printItem(args[0], v)
			})
		},
	}
}

func (a *app) printItem(name string, v holdfast.ItemValue) error {
	view := itemView{name, v.Version, v.TTL.Seconds(), string(v.Data)}
	return a.print(view, func(w io.Writer) { w.Write(v.Data) })
}

func (a *app) itemSetCommand() *cobra.Command {
	var ttl time.Duration
	var version int64
	var remove bool
	cmd := &cobra.Command{
		Use:     "set NAME",
		Short:   "Store what standard input says",
		Long:    "Store what standard input says and print the version. With --if it exits with 1, and stores nothing, when the item has another version.",
		Example: "  echo web-7 | holdfast item set maintenance --ttl 1h",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := a.readItem(remove)
			if err != nil {
				return err
			}
			return a.withClient(func(ctx context.Context, c *holdfast.Client) error {
				v, err := setItem(ctx, c.Item(args[0]), data, ttl, version, cmd.Flags().Changed("if"), remove)
				if err != nil {
					return err
				}
				return a.print(itemView{args[0], v.Version, v.TTL.Seconds(), string(v.Data)}, func(w io.Writer) { fmt.Fprintln(w, v.Version) })
			})
		},
	}
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "forget it after so long (default: never)")
	cmd.Flags().Int64Var(&version, "if", 0, "only if the item has this version, 0 if nothing is stored (default: whatever is there)")
	cmd.Flags().BoolVar(&remove, "delete", false, "remove the item instead")
	return cmd
}

// readItem reads standard input up to a little more than an item holds.
func (a *app) readItem(remove bool) ([]byte, error) {
	if remove {
		return nil, nil
	}
	data, err := io.ReadAll(io.LimitReader(a.in, holdfast.MaxItem+1))
	if err != nil {
		return nil, usagef("", "standard input could not be read: %w", err)
	}
	return data, nil
}

func setItem(ctx context.Context, i *holdfast.Item, data []byte, ttl time.Duration, version int64, compare, remove bool) (holdfast.ItemValue, error) {
	switch {
	case remove && compare:
		return holdfast.ItemValue{}, i.CompareAndDelete(ctx, version)
	case remove:
		return holdfast.ItemValue{}, i.Delete(ctx)
	case compare:
		return i.CompareAndSet(ctx, version, data, ttl)
	}
	return i.Set(ctx, data, ttl)
}

func (a *app) itemLockCommand() *cobra.Command {
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "lock NAME -- COMMAND [ARG...]",
		Short: "Change an item by a command while its lock is held",
		Long: `Take the item's lock and run COMMAND with the item's data as its standard input. When COMMAND
succeeds, what it wrote to standard output becomes the item's data; otherwise the item stays
as it is, and the exit code is COMMAND's. COMMAND is killed when the lock is lost.`,
		Example: "  holdfast item lock counter -- awk '{print $1+1}'",
		Args:    runArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			return a.changeItem(args[0], args[1:], ttl)
		},
	}
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "forget it after so long (default: never)")
	return cmd
}

func (a *app) changeItem(name string, argv []string, ttl time.Duration) error {
	path, err := findCommand(argv[0], a.getenv("PATH"))
	if err != nil {
		return err
	}
	ctx := context.Background()
	c, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer c.Close() // gives back what is held
	l, err := c.Item(name).GetAndLock(ctx)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	command := exec.CommandContext(l.Lease().Context(), path, argv[1:]...)
	command.Args[0], command.Env = argv[0], a.environ
	command.Stdin, command.Stdout, command.Stderr = bytes.NewReader(l.Data), &out, a.err
	err = command.Run()
	var exit *exec.ExitError
	switch {
	case l.Lease().Remaining() == 0:
		return &failure{exitLost, fmt.Errorf("the lock of the item %q was lost, and the item left as it is", name), ""}
	case errors.As(err, &exit):
		return exitStatus(max(1, exit.ExitCode()))
	case err != nil:
		return startFailure(path, err)
	}
	return l.UpdateAndUnlock(ctx, out.Bytes(), ttl)
}
