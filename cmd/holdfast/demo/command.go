// Package demo is the subcommand that shows what a distributed lock is for: a cluster of
// real processes issues invoice numbers without a lock, with a lock inside each process, and
// with holdfast.
package demo

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-go/holdfast"
)

// Bounds of the flags. Each instance is a process of its own.
const (
	maxInstances = 64
	maxInvoices  = 100_000
)

// The codes that the process should exit with, after sysexits.h and the shells.
const (
	exitFailed = 1 // the lock did not hold, or the demo could not be carried out
	exitUsage  = 64
	exitOutput = 74
	exitSignal = 128 // plus the signal's number
)

// failure is an error that knows its exit code and, where one helps, a hint for people. Who
// runs the command asks for them by these methods.
type failure struct {
	err  error
	code int
	hint string
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }
func (f *failure) ExitCode() int { return f.code }
func (f *failure) Hint() string  { return f.hint }

type options struct {
	instances, invoices int
	url, output, dir    string
}

// Command returns the demo subcommand. It heeds the flags --url and --output of the root
// command. Its errors are those of holdfast, or say by the methods ExitCode and Hint what to
// exit with and what to advise.
func Command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show what goes wrong without a distributed lock, and what does not with one",
		Long: `Demo starts a cluster of small web services, each a process of its own, and lets them
issue invoices from one SQLite database: a request reads the last invoice number and the
total, adds one and 1.00 to them, and writes them back. It does so three times: without a
lock, with a lock inside each process, and with holdfast. The table at the end counts the
numbers that were issued twice, those that were left out, and the amounts that the total
lost.

Without --url and HOLDFAST_URL the locks are files in a temporary folder. Everything runs on
this machine, listens on 127.0.0.1 only, and is gone afterwards.`,
		Example: `  holdfast demo
  holdfast demo --instances 8 --invoices 200
  holdfast demo --url redis://127.0.0.1:6379`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.url = given(cmd, "url", os.Getenv("HOLDFAST_URL"))
			o.output = given(cmd, "output", "text")
			return classify(o.run(cmd))
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.instances, "instances", 4, fmt.Sprintf("processes in the cluster, 1 to %d", maxInstances))
	f.IntVar(&o.invoices, "invoices", 500, fmt.Sprintf("invoices that each instance issues, 1 to %d", maxInvoices))
	f.StringVar(&o.dir, "dir", "", "keep the databases, in a new folder below this one")
	cmd.AddCommand(instanceCommand())
	return cmd
}

// given returns what a flag was set to, or otherwise if it was not.
func given(cmd *cobra.Command, flag, otherwise string) string {
	if f := cmd.Flag(flag); f != nil && f.Changed {
		return f.Value.String()
	}
	return otherwise
}

// classify gives errors that have no exit code one.
func classify(err error) error {
	var f *failure
	var h *holdfast.Error
	if err == nil || errors.As(err, &f) || errors.As(err, &h) {
		return err
	}
	return &failure{err: err, code: exitFailed}
}

func (o options) validate() error {
	var wrong []error
	if o.instances < 1 || o.instances > maxInstances {
		wrong = append(wrong, fmt.Errorf("--instances is %d: it must be 1 to %d", o.instances, maxInstances))
	}
	if o.invoices < 1 || o.invoices > maxInvoices {
		wrong = append(wrong, fmt.Errorf("--invoices is %d: it must be 1 to %d", o.invoices, maxInvoices))
	}
	if o.output != "text" && o.output != "json" {
		wrong = append(wrong, fmt.Errorf("--output is %q: it must be text or json", o.output))
	}
	if len(wrong) > 0 {
		return &failure{err: errors.Join(wrong...), code: exitUsage}
	}
	if scheme, _, _ := strings.Cut(o.url, ":"); strings.EqualFold(scheme, "mem") {
		return &failure{
			err:  errors.New("mem:// locks inside one process, and the demo runs several"),
			code: exitUsage,
			hint: "leave the URL out for locks in a temporary folder, or name an engine that processes share",
		}
	}
	return nil
}

func (o options) run(cmd *cobra.Command) (err error) {
	if err := o.validate(); err != nil {
		return err
	}
	ctx, stop := untilSignal(cmd.Context())
	defer stop()
	defer func() {
		// Whatever failed because of the signal, the signal is what people want to hear of.
		if ctx.Err() != nil {
			err = interruption(ctx)
		}
	}()
	folder, err := o.makeFolder()
	if err != nil {
		return fmt.Errorf("no folder for the databases: %w", err)
	}
	if o.dir == "" {
		defer os.RemoveAll(folder)
	}
	if o.url == "" {
		o.url = fileURL(filepath.Join(folder, "locks")).String()
	}
	d := &demonstration{options: o, folder: folder, lock: "demo:" + filepath.Base(folder), cmd: cmd}
	r, err := d.runAll(ctx)
	if err != nil {
		return err
	}
	if err := r.print(cmd.OutOrStdout(), o.output); err != nil {
		return &failure{err: fmt.Errorf("output could not be written: %w", err), code: exitOutput}
	}
	if o.dir != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "The databases are in %s.\n", folder)
	}
	if !r.Sound {
		return &failure{err: errors.New("holdfast did not issue every number exactly once"), code: exitFailed}
	}
	return nil
}

func (o options) makeFolder() (string, error) {
	folder, err := os.MkdirTemp(o.dir, "holdfast-demo-")
	if err != nil {
		return "", err
	}
	return filepath.Abs(folder) // the instances are told
}

// fileURL returns the URL of an absolute path.
func fileURL(path string) *url.URL {
	path = filepath.ToSlash(path)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // C:/…
	}
	return &url.URL{Scheme: "file", Path: path}
}
