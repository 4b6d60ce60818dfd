package mysqllock

import (
	"context"
	"database/sql"
	"fmt"
	"reflect"
	"runtime/debug"
)

// A caller who finds the session at rest takes the turn itself: to hand its job to the session's
// goroutine, and to be woken by it, are two switches, each of which may wake a thread. What is asked
// meanwhile queues up, and is the goroutine's as soon as the caller has its own answer.
//
// Who is in a statement cannot leave it before the server answers: only the end of the connection ends
// the driver's read. So this is done only where nothing else lives in the session. When the caller's
// context ends, and the server stays silent for as long as anybody waits for it then, the connection is
// given up; nobody loses anything by that. Nothing can come to live there meanwhile, as the session
// does one thing at a time, and enters what it was granted in the same turn.
//
// All of this needs a driver that returns when the context of its statement ends, see prompt.

// perform has j done, and returns at once or when that is over.
func (s *session) perform(ctx context.Context, j *job) {
	if !s.lead(ctx, j) {
		s.submit(j)
	}
}

// lead does j on the goroutine of its caller, where that may be, and reports whether it did. A wait is
// no matter of ctx: its caller ends it when it is to.
func (s *session) lead(ctx context.Context, j *job) bool {
	if !j.waits && ctx.Err() != nil {
		return false
	}
	s.mu.Lock()
	if s.turning || len(s.queue) > 0 || s.conn == nil || !s.prompt || s.lives.Load() > 0 {
		s.mu.Unlock()
		return false
	}
	s.turning = true
	s.mu.Unlock()
	if !j.waits {
		s.leavers.Enter(ctx)
	}
	defer s.resign()
	jobs, _ := sortJobs([]*job{j})
	s.carryOut(jobs)
	return true
}

// resign ends what lead began. Only now may others use the connection.
func (s *session) resign() {
	if p := recover(); p != nil {
		// What the driver, or database/sql around it, has left locked nobody can tell. It ends the
		// process, and with it whatever it holds, as it does on the session's goroutine: a caller who
		// recovers must not go on with that.
		stack := debug.Stack()
		go func() { panic(&driverPanic{p, stack}) }()
		select {}
	}
	s.leavers.Exit()
	s.mu.Lock()
	s.turning, s.left = false, false
	rouse := len(s.queue) > 0
	s.mu.Unlock()
	if rouse {
		s.rouse()
	}
}

// driverPanic is a panic of the driver's, and where it was.
type driverPanic struct {
	value any
	stack []byte
}

func (p *driverPanic) Error() string {
	return fmt.Sprintf("the database driver panicked: %v\n%s", p.value, p.stack)
}

// leave ends the statement that the caller is in, and has no other begin in its turn.
func (s *session) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = true
	if s.abort != nil {
		s.abort()
	}
}

func (s *session) isLeft() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left
}

// prompt reports whether the driver is known to give up reading from a server that is silent when the
// context of a statement ends. go-sql-driver closes its connection.
func prompt(conn *sql.Conn) (is bool) {
	_ = conn.Raw(func(c any) error {
		t := reflect.TypeOf(c)
		is = t.Kind() == reflect.Pointer && t.Elem().PkgPath() == "github.com/go-sql-driver/mysql"
		return nil
	})
	return is
}
