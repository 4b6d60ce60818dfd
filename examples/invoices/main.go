// Invoices is a web service that issues invoices, in any number of instances, each invoice with
// a number of its own. It is the set-up of the article that holdfast began with, and the tour of
// what holdfast has for it. See the README beside it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/holdfast-go/holdfast/examples/invoices/internal/service"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := service.Main(ctx, os.Getenv, os.Stderr)
	stop()
	os.Exit(code)
}
