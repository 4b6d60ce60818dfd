package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-go/holdfast"
)

// electFlags are the flags of elect.
type electFlags struct {
	value     string
	ttl       time.Duration // 0: the engine's default
	killAfter time.Duration
}

const electLong = `Wait until this process leads the election NAME, run COMMAND while it does, and when
leadership was lost stop COMMAND, wait for leadership again and run COMMAND again.

COMMAND gets what it gets from run, and signals as well. When it ends by itself within a
term, the term ends, and the exit code is COMMAND's. Others see --value as long as this process leads.
--show prints who leads, and exits with 1 when nobody does.`

func (a *app) electCommand() *cobra.Command {
	var f electFlags
	var show bool
	cmd := &cobra.Command{
		Use:                   "elect [flags] NAME -- COMMAND [ARG...]",
		Short:                 "Run a command while this process leads",
		Long:                  electLong,
		Example:               "  holdfast elect scheduler --value \"$(hostname)\" -- ./scheduler\n  holdfast elect scheduler --show",
		DisableFlagsInUseLine: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if show {
				return cobra.ExactArgs(1)(cmd, args)
			}
			return runArgs(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case show:
				return a.showLeader(args[0])
			case f.killAfter < 0:
				return usagef("", "--kill-after is %v: it must not be negative", f.killAfter)
			case cmd.Flags().Changed("ttl") && f.ttl <= 0:
				return usagef("", "--ttl is %v: it must be positive", f.ttl)
			}
			return a.elect(&f, args[0], args[1:])
		},
	}
	cmd.Flags().StringVar(&f.value, "value", "", "what others see of the leader (default: the owner label)")
	cmd.Flags().DurationVar(&f.ttl, "ttl", 0, "after how long a leader that died is replaced (default: the engine's)")
	cmd.Flags().DurationVar(&f.killAfter, "kill-after", 5*time.Second, "time between TERM and KILL")
	cmd.Flags().BoolVar(&show, "show", false, "print who leads")
	return cmd
}

// leaderView is what --show prints in JSON. Its field names are part of the interface.
type leaderView struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	Fence int64  `json:"fence"`
}

func (a *app) showLeader(name string) error {
	return a.withClient(func(ctx context.Context, c *holdfast.Client) error {
		l, err := c.Election(name).Leader(ctx)
		if err != nil {
			return err
		}
		if l.Fence == 0 {
			return exitStatus(exitNotHeld)
		}
		return a.print(leaderView{name, string(l.Value), l.Fence}, func(w io.Writer) { fmt.Fprintln(w, printable(string(l.Value))) })
	})
}

func (a *app) elect(f *electFlags, name string, argv []string) error {
	path, err := findCommand(argv[0], a.getenv("PATH"))
	if err != nil {
		return err
	}
	surviveClosedStderr()
	signals := make(chan os.Signal, 64)
	notify(signals, endingSignals)
	c, err := a.open(context.Background())
	if err != nil {
		return err
	}
	defer c.Close() // gives back what is held
	u, _ := a.engineURL()
	owner := a.ownerLabel(u)
	if f.value == "" {
		f.value = owner
	}
	opts := []holdfast.Option{holdfast.WithOwner(owner)}
	if f.ttl > 0 {
		opts = append(opts, holdfast.WithTTL(f.ttl))
	}
	e := c.Election(name, opts...)
	for {
		term, err := campaign(e, f.value, signals)
		if err != nil {
			return err
		}
		a.logf("leading %q with fence %d", name, term.Fence())
		code, lost, err := a.serveTerm(f, path, argv, &held{client: c, lease: term.Lease(), owner: owner}, signals)
		if err != nil || !lost {
			if resigned := term.Resign(); resigned != nil {
				a.logf("resigning: %v", resigned)
			}
			if err != nil {
				return err
			}
			return exitStatus(code)
		}
	}
}

// serveTerm runs the command for one term. lost says that the term was lost and the command stopped.
func (a *app) serveTerm(f *electFlags, path string, argv []string, h *held, signals chan os.Signal) (code int, lost bool, err error) {
	notify(signals, forwardedSignals)
	child, err := startProcess(path, argv, a.childEnv(h), a.streams)
	if err != nil {
		return 0, false, startFailure(path, err)
	}
	s := &supervisor{app: a, held: h, child: child, signals: signals, killAfter: f.killAfter}
	code = s.supervise()
	if s.lost && s.stops == 0 {
		return code, true, nil
	}
	return code, false, nil
}

// campaign waits for leadership until a signal comes.
func campaign(e *holdfast.Election, value string, signals <-chan os.Signal) (*holdfast.Term, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case s := <-signals:
				if slices.Contains(endingSignals, s) {
					cancel(interrupted{s})
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	term, err := e.Campaign(ctx, []byte(value))
	cancel(nil)
	<-stopped // from here on signals belong to whoever supervises the command
	var why interrupted
	if !errors.As(context.Cause(ctx), &why) {
		return term, err
	}
	if err == nil {
		_ = term.Resign() // what cannot be given back runs out
	}
	return nil, &failure{exitSignal + signalNumber(why.signal), fmt.Errorf("stopped waiting for leadership: %w", why), ""}
}
