package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/holdfast-go/holdfast"
)

// numbersView is what seq prints in JSON. Its field names are part of the interface.
type numbersView struct {
	Name  string `json:"name"`
	First int64  `json:"first,omitempty"`
	Last  int64  `json:"last"`
}

func (a *app) seqCommand() *cobra.Command {
	var count, above int64
	var peek bool
	cmd := &cobra.Command{
		Use:   "seq NAME",
		Short: "Take the next number of a sequence",
		Long: `Take the next number of a sequence, or the next --count numbers, and print them, one a line.
No other process gets them, and they are larger than all that were given out before. Numbers
may be left out. --above N raises a sequence whose numbers are in use up to N already.`,
		Example: "  holdfast seq invoice:2026\n  holdfast seq ticket --count 10",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if peek && (cmd.Flags().Changed("count") || cmd.Flags().Changed("above")) {
				return usagef("", "--peek takes no number: leave out --count and --above")
			}
			return a.withClient(func(ctx context.Context, c *holdfast.Client) error {
				v, err := numbers(ctx, c, args[0], count, above, peek, cmd.Flags().Changed("above"))
				if err != nil {
					return err
				}
				return a.printNumbers(v)
			})
		},
	}
	cmd.Flags().Int64Var(&count, "count", 1, "how many numbers to take")
	cmd.Flags().Int64Var(&above, "above", 0, "begin above this number where the sequence is not there yet")
	cmd.Flags().BoolVar(&peek, "peek", false, "print the highest number given out so far, 0 for none, and take none")
	return cmd
}

func numbers(ctx context.Context, c *holdfast.Client, name string, count, above int64, peek, raise bool) (numbersView, error) {
	var opts []holdfast.SequenceOption
	if raise {
		opts = append(opts, holdfast.WithSource(func(context.Context) (int64, error) { return above, nil }))
	}
	s := c.Sequence(name, opts...)
	if peek {
		last, err := s.Peek(ctx)
		return numbersView{Name: name, Last: last}, err
	}
	if raise {
		if err := s.Resync(ctx); err != nil {
			return numbersView{}, err
		}
	}
	got, err := s.Reserve(ctx, count)
	return numbersView{name, got.First, got.Last}, err
}

func (a *app) printNumbers(v numbersView) error {
	return a.print(v, func(w io.Writer) {
		first := v.First
		if first == 0 { // of --peek
			first = v.Last
		}
		for n := first; n <= v.Last; n++ {
			fmt.Fprintln(w, n)
		}
	})
}
