package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-go/holdfast"
)

// runFlags are the flags of run.
type runFlags struct {
	try       bool
	wait      time.Duration // 0: without limit
	ttl       time.Duration // 0: the engine's default
	maxHold   time.Duration // 0: without limit
	killAfter time.Duration
	shared    bool
	permits   string // k/n, empty for none
}

const runLong = `Take the lock NAME, run COMMAND while it is held, release it, and exit as COMMAND did.

COMMAND gets standard input, output and error as they are, and in its environment
HOLDFAST_NAME, HOLDFAST_FENCE and HOLDFAST_OWNER. It runs in a process group of its own,
which is the terminal's foreground group if holdfast was; Ctrl-C and Ctrl-Z then reach it
directly. Processes that COMMAND leaves behind are left alone, without the lock.

Signals that holdfast gets are passed on to the group: INT, TERM, HUP, QUIT, USR1, USR2,
CONT, TSTP and WINCH. A second INT or TERM is passed on too, and is the last warning: if
COMMAND still runs --kill-after later, its group is killed. While holdfast still waits for
the lock, INT, TERM, HUP and QUIT end the wait, and the exit code is 128+n.

When the lock is lost while COMMAND runs, the group gets TERM at once and KILL --kill-after
later, and the exit code is 73, whatever COMMAND says. A paused process cannot be stopped in
time: check HOLDFAST_FENCE at the resource where that matters. If holdfast itself is killed,
COMMAND is killed with it (Linux, Windows), but not what COMMAND has started, nor a COMMAND
that is setuid, such as sudo (Linux).

Exit codes: that of COMMAND, 128+n if signal n ended it; 64 usage; 69 engine unavailable;
73 lock lost; 75 held by somebody else, or --wait ran out; 126 COMMAND could not be started;
127 COMMAND not found.`

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] NAME -- COMMAND [ARG...]",
		Short: "Run a command while a lock is held",
		Long:  runLong,
		Example: `  holdfast run nightly --try -- ./backup.sh
  holdfast run deploy --wait 30s -- make deploy
  holdfast run render --permits 1/4 -- render scene.blend`,
		Args:                  runArgs,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(cmd.Flags().Changed); err != nil {
				return err
			}
			return a.runUnderLock(&f, args[0], args[1:])
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.try, "try", false, "do not wait: exit 75 if the lock is held")
	flags.DurationVar(&f.wait, "wait", 0, "wait so long at most, then exit 75 (default: without limit)")
	flags.DurationVar(&f.ttl, "ttl", 0, "how long the lock outlives its last renewal (default: the engine's)")
	flags.DurationVar(&f.maxHold, "max-hold", 0, "lose the lock after so long (default: never)")
	flags.DurationVar(&f.killAfter, "kill-after", 5*time.Second, "time between TERM and KILL")
	flags.BoolVar(&f.shared, "shared", false, "share the lock with other readers")
	flags.StringVar(&f.permits, "permits", "", "take k permits of a semaphore of n, written k/n")
	return cmd
}

// runArgs asks for the two dashes: without them a flag of the command would be taken for one
// of ours, or the other way round.
func runArgs(cmd *cobra.Command, args []string) error {
	const hint = "for example: holdfast run nightly -- ./backup.sh"
	switch dash := cmd.ArgsLenAtDash(); {
	case len(args) == 0 || dash == 0:
		return usagef(hint, "the name of the lock is missing")
	case dash > 1:
		return usagef(hint, "one name before the two dashes, not %d", dash)
	case dash < 0:
		return usagef(hint, "put two dashes between the name and the command")
	case len(args) == 1 || args[1] == "":
		return usagef(hint, "the command is missing")
	}
	return nil
}

func (f *runFlags) check(given func(string) bool) error {
	switch {
	case f.try && given("wait"):
		return usagef("", "--try does not wait: leave out --wait, or --try")
	case f.shared && given("permits"):
		return usagef("", "--shared is for locks and --permits for semaphores: leave one out")
	case given("permits") && f.permits == "":
		return usagef("", "--permits is empty: write k/n, such as 1/4")
	case given("wait") && f.wait <= 0:
		return usagef("--try does not wait", "--wait is %v: it must be positive", f.wait)
	case given("ttl") && f.ttl <= 0:
		return usagef("", "--ttl is %v: it must be positive", f.ttl)
	case given("max-hold") && f.maxHold <= 0:
		return usagef("", "--max-hold is %v: it must be positive", f.maxHold)
	case f.killAfter < 0:
		return usagef("", "--kill-after is %v: it must not be negative", f.killAfter)
	}
	_, _, err := f.share()
	return err
}

// share reads --permits.
func (f *runFlags) share() (k, n int, err error) {
	if f.permits == "" {
		return 0, 0, nil
	}
	left, right, _ := strings.Cut(f.permits, "/")
	k, errK := strconv.Atoi(left)
	n, errN := strconv.Atoi(right)
	if errK != nil || errN != nil || k < 1 || k > n {
		return 0, 0, usagef("", "--permits is %q: write k/n, such as 1/4, with k from 1 to n", f.permits)
	}
	return k, n, nil
}

// runUnderLock is the run command. Nothing is asked of the engine for a command that does
// not exist.
func (a *app) runUnderLock(f *runFlags, name string, argv []string) error {
	path, err := findCommand(argv[0], a.getenv("PATH"))
	if err != nil {
		return err
	}
	surviveClosedStderr()
	signals := make(chan os.Signal, 64)
	notify(signals, endingSignals)
	h, err := a.take(f, name, signals)
	if err != nil {
		return err
	}
	notify(signals, forwardedSignals)
	child, err := startProcess(path, argv, a.childEnv(h), a.streams)
	if err != nil {
		a.giveBack(h)
		return startFailure(path, err)
	}
	s := &supervisor{app: a, held: h, child: child, signals: signals, killAfter: f.killAfter}
	code := s.supervise()
	if err := a.giveBack(h); errors.Is(err, holdfast.ErrLost) && !s.lost {
		a.complain(fmt.Errorf("the lock %q was lost before the command ended: %w", name, err), lostHint)
		code = exitLost
	}
	if code != exitLost {
		child.passUp()
	}
	return exitStatus(code)
}

// childEnv is the environment of the command. Ours come last and inherited ones are left
// out, so that a nested run never shows its command the lock of the outer one.
func (a *app) childEnv(h *held) []string {
	own := []string{
		"HOLDFAST_NAME=" + h.lease.Name(),
		"HOLDFAST_FENCE=" + strconv.FormatInt(h.lease.Fence(), 10),
		"HOLDFAST_OWNER=" + h.owner,
	}
	env := make([]string, 0, len(a.environ)+len(own))
	for _, kv := range a.environ {
		switch key, _, _ := strings.Cut(kv, "="); key {
		case "HOLDFAST_NAME", "HOLDFAST_FENCE", "HOLDFAST_OWNER":
		default:
			env = append(env, kv)
		}
	}
	return append(env, own...)
}
