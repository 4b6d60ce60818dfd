package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/cmd/holdfast/demo"
)

// streams are the standard streams. They are files because run passes them on as they are.
type streams struct {
	in, out, err *os.File
}

// app is one invocation of the program.
type app struct {
	streams
	environ []string

	// Global flags.
	url, output, owner string
	verbose            bool
}

// callTimeout bounds the calls of commands that only look at locks or break them.
const callTimeout = 15 * time.Second

// run is the program without its process: it returns the exit code.
func run(args, environ []string, s streams) int {
	a := &app{streams: s, environ: environ}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	cmd, err := root.ExecuteC()
	return a.report(cmd, err)
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "holdfast",
		Short: "Run commands under a distributed lock",
		Long: `holdfast runs commands under a distributed lock, and shows and breaks locks.

The engine is named by --url, or HOLDFAST_URL, for example file:///var/lib/holdfast.
Without either, locks are files in the user's state folder and exclude the processes of
this machine. Put URLs with passwords into HOLDFAST_URL: others can read a command line.

Exit codes: 0 done; 1 not held, held with another fence, or of doctor a problem; 64 usage;
69 engine unavailable; 73 lock lost while the command ran; 74 output could not be written; 75 held
by somebody else; 126 command could not be started; 127 command not found; 128+n ended by
signal n. run otherwise exits with the code of its command.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.checkGlobals() },
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.url, "url", "", "URL of the engine (default: $HOLDFAST_URL, or files in the user's state folder)")
	flags.StringVarP(&a.output, "output", "o", "text", "what is printed: text or json")
	flags.StringVar(&a.owner, "owner", "", "label that others see as the holder (default: user, host and process id)")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "say on stderr what is being done")
	root.AddCommand(
		a.runCommand(),
		a.electCommand(),
		a.seqCommand(),
		a.limitCommand(),
		a.itemCommand(),
		a.lsCommand(),
		a.showCommand(),
		a.breakCommand(),
		a.doctorCommand(),
		a.enginesCommand(),
		a.versionCommand(),
		a.completionCommand(),
		demo.Command(),
	)
	return root
}

func (a *app) checkGlobals() error {
	if a.output != "text" && a.output != "json" {
		return usagef("", "--output is %q: it must be text or json", a.output)
	}
	return nil
}

// getenv returns the value of key in the environment that the program was given.
func (a *app) getenv(key string) string {
	value := ""
	for _, kv := range a.environ {
		if rest, ok := strings.CutPrefix(kv, key+"="); ok {
			value = rest
		}
	}
	return value
}

// engineURL says which engine to use.
func (a *app) engineURL() (string, error) {
	if a.url != "" {
		return a.url, nil
	}
	if u := a.getenv("HOLDFAST_URL"); u != "" {
		return u, nil
	}
	u, err := defaultURL()
	if err != nil {
		return "", &failure{exitUnavailable, fmt.Errorf("no folder for locks: %w", err), "name an engine with --url or HOLDFAST_URL"}
	}
	return u, nil
}

// open returns a client on the engine. ctx bounds the opening only.
func (a *app) open(ctx context.Context) (*holdfast.Client, error) {
	u, err := a.engineURL()
	if err != nil {
		return nil, err
	}
	a.logf("engine %s", redact(u))
	return holdfast.Open(ctx, u, holdfast.Config{Owner: a.ownerLabel(u)})
}

// withClient calls f with a client, for commands that need it for one call or two.
func (a *app) withClient(f func(context.Context, *holdfast.Client) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	c, err := a.open(ctx)
	if err != nil {
		return err
	}
	err = f(ctx, c)
	if closeErr := c.Close(); closeErr != nil {
		a.logf("closing the engine: %v", closeErr)
	}
	return err
}

// logf says on stderr what is being done, with --verbose.
func (a *app) logf(format string, args ...any) {
	if a.verbose {
		fmt.Fprintf(a.err, "holdfast: %s\n", a.oneLine(fmt.Sprintf(format, args...)))
	}
}
