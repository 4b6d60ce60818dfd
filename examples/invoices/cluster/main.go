// Cluster runs the invoices service as a cluster of real processes on this machine, loads it, breaks
// what it depends on, and reports how each strategy did.
//
//	go run ./examples/invoices/cluster --instances 8 --engine sentinel --failover
//
// The servers are the ones that are installed, see scripts/install; all listen on the loopback, and are
// gone afterwards.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/holdfast-go/holdfast/examples/invoices/internal/service"
	"github.com/holdfast-go/holdfast/examples/invoices/report"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := command(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// serve is the argument with which this program is an instance of the service: the same code as that
// of the service's own program, which need not be built then.
const serve = "serve"

// command returns the code to exit with: 0, 1 where something failed or a strategy did not keep its
// promise, 2 where the flags are wrong.
func command(ctx context.Context, args []string) int {
	if len(args) == 1 && args[0] == serve {
		return service.Main(ctx, os.Getenv, os.Stderr)
	}
	o, err := parse(args, os.Stderr)
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "cluster: error:", err)
		}
		return 2
	}
	var r report.Report
	if o.from != "" {
		r, err = saved(o.from)
	} else {
		r, err = runAll(ctx, o, os.Stderr)
	}
	if len(r.Rows) > 0 {
		err = errors.Join(err, o.write(r, os.Stdout), promises(r))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster: error:", err)
		return 1
	}
	return 0
}
