package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/holdfast-go/holdfast"
)

// failure is an error with the code to exit with and, where there is any, advice on what to
// do about it.
type failure struct {
	code int
	err  error
	hint string
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// usagef is a command line that cannot be carried out. Without a hint the help is named.
func usagef(hint, format string, args ...any) error {
	return &failure{exitUsage, fmt.Errorf(format, args...), hint}
}

// report says what went wrong and returns the exit code.
func (a *app) report(cmd *cobra.Command, err error) int {
	if err == nil {
		return exitOK
	}
	if status, ok := errors.AsType[exitStatus](err); ok {
		return int(status)
	}
	f := a.classify(err)
	if f.hint == "" && f.code == exitUsage {
		f.hint = fmt.Sprintf("'%s --help' shows what it takes", cmd.CommandPath())
	}
	a.complain(f.err, f.hint)
	return f.code
}

// complain writes an error and a hint, if there is one, to stderr.
func (a *app) complain(err error, hint string) {
	// Errors of the library begin with its name, also where they are the cause of ours.
	what := strings.ReplaceAll(strings.TrimPrefix(err.Error(), "holdfast: "), ": holdfast: ", ": ")
	text := fmt.Sprintf("holdfast: error: %s\n", a.oneLine(what))
	if hint != "" {
		text += fmt.Sprintf("holdfast: hint: %s\n", a.oneLine(hint))
	}
	fmt.Fprint(a.err, text)
}

// classify finds the exit code. What is neither ours nor of the library comes from the
// parser of the command line.
func (a *app) classify(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if d, ok := errors.AsType[interface {
		error
		ExitCode() int
		Hint() string
	}](err); ok { // of demo
		return &failure{d.ExitCode(), err, d.Hint()}
	}
	if _, ok := errors.AsType[*holdfast.Error](err); !ok {
		return &failure{exitUsage, err, ""}
	}
	f := &failure{exitUnavailable, err, ""}
	switch {
	case errors.Is(err, holdfast.ErrHeld):
		f.code = exitHeld
	case errors.Is(err, holdfast.ErrLost):
		f.code = exitLost
	case errors.Is(err, holdfast.ErrNotHeld):
		f.code, f.hint = exitNotHeld, "'holdfast ls' shows what is held"
	case errors.Is(err, holdfast.ErrStale):
		f.code, f.hint = exitNotHeld, "somebody else holds it by now: 'holdfast show' says who"
	case errors.Is(err, holdfast.ErrInvalid):
		f.code = exitUsage
		if e, ok := errors.AsType[*holdfast.Error](err); ok && e.Op == "open" {
			f.hint = "'holdfast engines' shows what URLs look like"
		}
	case errors.Is(err, holdfast.ErrUnsupported):
		f.code, f.hint = exitUsage, "'holdfast engines' shows what each engine can do"
	default:
		u, _ := a.engineURL()
		f.hint = fmt.Sprintf("check that %s can be reached, or name another engine with --url or HOLDFAST_URL", redact(u))
	}
	return f
}

// oneLine makes a message fit to be shown: on one line, without the engine's password and
// without control characters, for it may quote what others wrote.
func (a *app) oneLine(text string) string {
	u, _ := a.engineURL()
	return printable(strings.ReplaceAll(scrub(text, u), "\n", "; "))
}

// warnf says on stderr what does not change the exit code.
func (a *app) warnf(format string, args ...any) {
	fmt.Fprintf(a.err, "holdfast: warning: %s\n", a.oneLine(fmt.Sprintf(format, args...)))
}
