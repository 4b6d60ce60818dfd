// Package program is what the examples have in common around their point: every engine, the
// flag that says which one, and an orderly end.
package program

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/holdfast-go/holdfast"

	// A program imports the engine that it uses. Each registers its URL schemes for
	// holdfast.Open; pglock and mysqllock need a driver of database/sql beside them.
	_ "github.com/holdfast-go/holdfast/etcdlock"
	_ "github.com/holdfast-go/holdfast/filelock"
	_ "github.com/holdfast-go/holdfast/memlock"
	_ "github.com/holdfast-go/holdfast/mysqllock"
	_ "github.com/holdfast-go/holdfast/pglock"
	_ "github.com/holdfast-go/holdfast/redislock"
	_ "github.com/holdfast-go/holdfast/zklock"
)

// Main parses the flags and calls run with a client on the engine that -engine names: run's
// context ends at Ctrl-C or SIGTERM, and what is held then is given back before the process ends.
// A second Ctrl-C ends it at once. An error of run that is not due to the signal is printed, and
// the exit code is 1.
func Main(run func(ctx context.Context, hf *holdfast.Client) error) {
	engine := flag.String("engine", defaultEngine(), "`URL` of the engine: redis://…, etcd://…, postgres://…, mysql://…, zk://…, file:///…")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(flag.CommandLine.Output(), "%q is no flag\n", flag.Arg(0))
		flag.Usage()
		os.Exit(2)
	}
	log.SetPrefix(fmt.Sprintf("[%d] ", os.Getpid())) // for kill
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the next signal does what signals do
	if err := withClient(ctx, *engine, run); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

func withClient(ctx context.Context, engine string, run func(context.Context, *holdfast.Client) error) error {
	hf, err := holdfast.Open(ctx, engine, holdfast.Config{})
	if err != nil {
		return err
	}
	defer hf.Close() // gives back what is held
	log.Printf("started on %s", hf.Capabilities().Engine)
	return run(ctx, hf)
}

// Sleep waits for d or the end of ctx.
func Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Folder returns where the examples keep files: a folder in the system's one for temporary
// files, for each user another.
func Folder() string {
	return filepath.Join(os.TempDir(), "holdfast-examples-"+strconv.Itoa(os.Getuid()))
}

// defaultEngine names locks between the processes of this machine, which need no server.
func defaultEngine() string {
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(filepath.Join(Folder(), "locks"))}).String()
}
