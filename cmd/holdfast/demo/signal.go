package demo

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
)

// untilSignal returns a context that ends when the process is asked to stop; its cause is
// then a failure. A second signal ends the process at once.
//
// Who reads the output may go away. That must not kill a process that has a folder to
// remove: the write fails instead.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	signal.Ignore(syscall.SIGPIPE)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // by nohup
		signal.Notify(signals, syscall.SIGHUP)
	}
	go func() {
		defer signal.Stop(signals)
		select {
		case s := <-signals:
			n, ok := s.(syscall.Signal)
			if !ok {
				n = syscall.SIGINT
			}
			cancel(interrupted(n))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

func interrupted(s syscall.Signal) *failure {
	return &failure{err: errors.New("interrupted"), code: exitSignal + int(s)}
}

// interruption says why ctx ended early. Who runs the command may watch for Ctrl-C as well,
// and have ended its context first.
func interruption(ctx context.Context) error {
	var f *failure
	if errors.As(context.Cause(ctx), &f) {
		return f
	}
	return interrupted(syscall.SIGINT)
}
