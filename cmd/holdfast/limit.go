package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-go/holdfast"
)

// limitFlags are the flags of limit.
type limitFlags struct {
	rate, rule  string
	burst, cost int64
	wait        time.Duration
}

// decisionView is what limit prints in JSON. Its field names are part of the interface.
type decisionView struct {
	Name       string  `json:"name"`
	Allowed    bool    `json:"allowed"`
	Remaining  int64   `json:"remaining"`
	RetryAfter float64 `json:"retry_after_seconds"`
	ResetAfter float64 `json:"reset_after_seconds"`
}

func (a *app) limitCommand() *cobra.Command {
	var f limitFlags
	cmd := &cobra.Command{
		Use:   "limit NAME --rate N/WINDOW",
		Short: "Ask whether something may happen once more",
		Long: `Ask whether something may happen once more within a rate that all processes share, and count
it if it may. The exit code is 0 if it may and 75 if not; --wait waits until it may.`,
		Example: "  holdfast limit mail --rate 100/1h && ./send\n  holdfast limit api --rate 10/1s --rule pace --burst 5 --wait 30s",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			rate, err := f.parse(cmd.Flags().Changed)
			if err != nil {
				return err
			}
			return a.withClient(func(ctx context.Context, c *holdfast.Client) error {
				return a.limit(ctx, c.Limiter(args[0], rate), args[0], &f)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.rate, "rate", "", "how often in how much time, such as 100/1h")
	flags.StringVar(&f.rule, "rule", "sliding", "how to count: fixed or sliding windows, or an even pace")
	flags.Int64Var(&f.burst, "burst", 1, "with --rule pace: how much may happen at once after a pause")
	flags.Int64Var(&f.cost, "cost", 1, "for how much it counts; 0 looks")
	flags.DurationVar(&f.wait, "wait", 0, "wait so long at most, up to 15s")
	return cmd
}

// parse reads the rate.
func (f *limitFlags) parse(given func(string) bool) (holdfast.Rate, error) {
	left, right, _ := strings.Cut(f.rate, "/")
	n, errN := strconv.ParseInt(left, 10, 64)
	window, errW := time.ParseDuration(right)
	if errN != nil || errW != nil {
		return holdfast.Rate{}, usagef("", "--rate is %q: write a number, a slash and a time, such as 100/1h", f.rate)
	}
	if given("burst") && f.rule != "pace" {
		return holdfast.Rate{}, usagef("", "--burst goes with --rule pace")
	}
	if f.wait < 0 || f.wait > callTimeout {
		return holdfast.Rate{}, usagef("", "--wait is %v: it must be 0 to %v", f.wait, callTimeout)
	}
	switch f.rule {
	case "fixed":
		return holdfast.FixedWindow(n, window), nil
	case "sliding":
		return holdfast.SlidingWindow(n, window), nil
	case "pace":
		return holdfast.Pace(n, window, f.burst), nil
	}
	return holdfast.Rate{}, usagef("", "--rule is %q: it must be fixed, sliding or pace", f.rule)
}

func (a *app) limit(ctx context.Context, l *holdfast.Limiter, name string, f *limitFlags) error {
	cost := f.cost
	if f.wait > 0 {
		waiting, cancel := context.WithTimeout(ctx, f.wait)
		defer cancel()
		err := l.Wait(waiting, cost)
		if err != nil && !errors.Is(err, holdfast.ErrHeld) {
			return err
		}
		if err == nil {
			cost = 0 // it is counted: look what is left
		}
	}
	d, err := l.Allow(ctx, cost)
	if err != nil {
		return err
	}
	v := decisionView{name, d.Allowed, d.Remaining, d.RetryAfter.Seconds(), d.ResetAfter.Seconds()}
	err = a.print(v, func(w io.Writer) {
		if d.Allowed {
			fmt.Fprintf(w, "allowed, %d remaining\n", d.Remaining)
		} else {
			fmt.Fprintf(w, "refused, retry in %v\n", d.RetryAfter.Round(time.Millisecond))
		}
	})
	if err == nil && !d.Allowed {
		return exitStatus(exitHeld)
	}
	return err
}
