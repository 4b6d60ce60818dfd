package interoptest

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/pglock"
)

// childVariable has the test binary be a process that holds a lock: its value is the URL.
const childVariable = "HOLDFAST_PGLOCK_CHILD"

// child takes a lock, says so, and renews it until it is losb.
func child() {
	db, err := sql.Open("pgx", os.Getenv(childVariable))
	if err != nil {
		panic(err)
	}
	e, err := pglock.New(context.Background(), db, pglock.Config{})
	if err != nil {
		panic(err)
	}
	req := request("frozen", "child", short)
	g, err := e.Acquire(context.Background(), req)
	if err != nil {
		panic(err)
	}
	fmt.Println("held")
	for {
		time.Sleep(short / 5)
		if err := e.Renew(context.Background(), []driver.Claim{req.Claim(g)})[0]; err != nil {
			fmt.Println("renewal:", err)
			os.Exit(0)
		}
	}
}

// holderIsFrozen: a process that holds a lock is stopped past its lease. The server ends
// its session, who waits gets the lock, and the process finds out when it goes on.
func holderIsFrozen(b *bench) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+b.server.URL())
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "held" {
		b.Fatalf("the child says %q", lines.Text())
	}
	e := b.engine("pgx", pglock.Config{})
	w := b.wait(e, request("frozen", "thawed", long))
	b.eventually("it waits", func() bool { return b.blocked("thawed") == 1 })
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		b.Fatal(err)
	}
	frozen := time.Now()
	next := w.granted()
	b.Logf("granted %v after the holder with a TTL of %v was frozen", time.Since(frozen), short)
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		b.Fatal(err)
	}
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "renewal: lost") {
		b.Errorf("the child says %q when it goes on", lines.Text())
	}
	if err := next.renew(); err != nil {
		b.Errorf("renewal of the new holder: %v", err)
	}
	b.released(next)
}
