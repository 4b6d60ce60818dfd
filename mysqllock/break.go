package mysqllock

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// breakFor is how long Break waits for the holder.
const breakFor = 5 * time.Second

// Break implements driver.Inspector. No session can release a lock of another, and to kill the
// session would take all other locks of that process as well. So the holder's engine is asked
// to let go, which it does within half a second, whatever the holder is doing; its lease ends.
//
// If the process does not answer within 5 seconds, the error says which connection holds the
// lock: its lease ends it, or an administrator's KILL. The same goes for locks of clients that
// are not of this package. No record of the break is kept.
func (e *Engine) Break(ctx context.Context, req driver.BreakRequest) (driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Info{}, err
	}
	defer e.leave()
	type target struct {
		info  driver.Info
		where string
		conn  uint64
	}
	rows, stranger, err := e.look(ctx, req.Name)
	if err != nil {
		return driver.Info{}, err
	}
	asked := make(chan target, 1)
	err = e.onMain(ctx, func(s *session) error {
		t := target{info: infoOf(req.Name, rows, stranger)}
		if err := breakable(req, rows, stranger, t.info); err != nil {
			return err
		}
		var these []string
		for _, r := range rows {
			t.conn = r.conn
			these = append(these, fmt.Sprintf("(k='%s' AND fence=%d AND conn=%d)", r.key, r.fence, r.conn))
		}
		t.where = strings.Join(these, " OR ")
		if _, err := s.exec("UPDATE "+e.cfg.quoted()+" SET broken=1 WHERE "+t.where, 0); err != nil {
			return err
		}
		asked <- t
		return nil
	})
	if err != nil {
		return driver.Info{}, err
	}
	t := <-asked
	return t.info, e.awaitBreak(ctx, t.where, t.conn)
}

// breakable says why a name cannot be broken, nil if it can.
func breakable(req driver.BreakRequest, rows []entry, stranger uint64, info driver.Info) error {
	if len(rows) == 0 && stranger == 0 {
		return driver.Fail(driver.NotHeld, nil)
	}
	match := req.Fence == 0
	for _, r := range rows {
		match = match || r.fence-int64(r.span) < req.Fence && req.Fence <= r.fence
	}
	switch {
	case !match:
		return driver.Failf(driver.Stale, "nobody holds fence %d: the highest is %d", req.Fence, info.Fence)
	case stranger != 0:
		return driver.Failf(driver.Unsupported, "connection %d of another client holds it, which cannot be asked to let go: "+
			"an administrator may run KILL %[1]d, which ends everything that the connection does", stranger)
	}
	return nil
}

// awaitBreak waits until the shares of those rows have been let go.
func (e *Engine) awaitBreak(ctx context.Context, where string, conn uint64) error {
	over := time.NewTimer(breakFor)
	defer over.Stop()
	for {
		left := make(chan int, 1)
		err := e.onMain(ctx, func(s *session) error {
			rows, err := s.entries(where)
			left <- len(rows)
			return err
		})
		if err != nil {
			return err
		}
		if <-left == 0 {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ended(ctx.Err())
		case <-e.closing:
			return errClosed
		case <-over.C:
			return &driver.Error{Kind: driver.Unavailable, Outcome: driver.Unknown, Err: fmt.Errorf(
				"the process with connection %d was asked to let go and does not: its lease ends it if it hangs; KILL %[1]d ends it now, with all locks of that process", conn)}
		}
	}
}

// letGo gives back the share of a row that was broken. A name that is busy is looked at again
// the next time.
func (e *Engine) letGo(r entry) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.sessions() {
		for sh := range s.shares {
			if n := e.names[sh.name]; sh.key == r.key && sh.top == r.fence && !n.busy {
				sh.session.submit(e.givingBack(n, sh, func(error) {}))
				return
			}
		}
	}
}
