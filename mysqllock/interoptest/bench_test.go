package interoptest

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver/drivertest"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/mysqllock"
)

// The server does not wait for its disk, so that the figures are about locks.

func BenchmarkEngine(b *testing.B) {
	server := testserver.MariaDB(b, testserver.MariaDBOptions{})
	drivertest.Benchmark(b, drivertest.Harness{
		New: func(t drivertest.T) drivertest.Store { return newStore(t, server) },
	})
}

// BenchmarkClient is the engine as users have it.
func BenchmarkClient(b *testing.B) {
	server := testserver.MariaDB(b, testserver.MariaDBOptions{})
	e, err := mysqllock.Open(b.Context(), server.URL(""), mysqllock.Config{})
	if err != nil {
		b.Fatal(err)
	}
	c, err := holdfast.New(e, holdfast.Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	work := func(name string) error {
		return c.Mutex(name).Do(b.Context(), func(context.Context, *holdfast.Lease) error { return nil })
	}
	b.Run("uncontended", func(b *testing.B) { each(b, 1, func(int) error { return work("name") }) })
	b.Run("64-names", func(b *testing.B) { each(b, 64, func(i int) error { return work(fmt.Sprint("name-", i)) }) })
	b.Run("one-name", func(b *testing.B) { each(b, 64, func(int) error { return work("name") }) })
}

// BenchmarkBare is GET_LOCK and RELEASE_LOCK by hand, each goroutine with a connection of its own.
func BenchmarkBare(b *testing.B) {
	server := testserver.MariaDB(b, testserver.MariaDBOptions{})
	db, err := sql.Open("mysql", server.DSN(""))
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	run := func(goroutines int, name func(int) string) func(*testing.B) {
		return func(b *testing.B) {
			conns := make([]*sql.Conn, goroutines)
			for i := range conns {
				if conns[i], err = db.Conn(b.Context()); err != nil {
					b.Fatal(err)
				}
				defer conns[i].Close()
			}
			each(b, goroutines, func(i int) error {
				if _, err := conns[i].ExecContext(b.Context(), "DO GET_LOCK('"+name(i)+"',10)"); err != nil {
					return err
				}
				_, err := conns[i].ExecContext(b.Context(), "DO RELEASE_LOCK('"+name(i)+"')")
				return err
			})
		}
	}
	b.Run("uncontended", run(1, func(int) string { return "name" }))
	b.Run("64-names", run(64, func(i int) string { return fmt.Sprint("name-", i) }))
	b.Run("one-name", run(64, func(int) string { return "name" }))
}

// each has goroutines share b.N calls of work.
func each(b *testing.B, goroutines int, work func(int) error) {
	var begun atomic.Int64
	var all sync.WaitGroup
	b.ResetTimer()
	for i := range goroutines {
		all.Go(func() {
			for begun.Add(1) <= int64(b.N) {
				if err := work(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}
