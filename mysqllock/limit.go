package mysqllock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// limit bounds the time of a session's commonest statements, one after the other. A context with a
// deadline for each is made, hung into the engine's and taken off again, with a timer of its own: more
// than some statements cost beside that. So all of them have one context, and one timer that looks when
// the time of the first was over, and then for as long as it has to. What ends a statement ends the
// connection as well; where the statement was over in that same moment, the next has another context.
type limit struct {
	life context.Context // of the engine

	mu    sync.Mutex
	ctx   context.Context // of statements, nil before the first
	end   context.CancelCauseFunc
	due   time.Time // until when the statement under way may take, zero: there is none
	timer *time.Timer
	looks time.Time // when timer does, zero: not at all
}

// begin returns the context of a statement that may take so long, and what ends that sooner.
func (l *limit) begin(most time.Duration) (ctx context.Context, abort func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx == nil || l.ctx.Err() != nil {
		l.ctx, l.end = context.WithCancelCause(l.life)
	}
	if l.due = time.Now().Add(most); l.looks.IsZero() || l.looks.After(l.due) {
		l.looks = l.due
		if l.timer == nil {
			l.timer = time.AfterFunc(most, l.look)
		} else {
			l.timer.Reset(most)
		}
	}
	return l.ctx, l.abort
}

// over says that the statement has ended with err, and returns that, with the reason where it was ended.
func (l *limit) over(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.due = time.Time{}
	if cause := context.Cause(l.ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w (%w)", cause, err)
	}
	return err
}

// abort ends the statement under way.
func (l *limit) abort() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.due.IsZero() {
		l.end(nil)
	}
}

func (l *limit) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looks = time.Time{}
	switch left := time.Until(l.due); {
	case l.due.IsZero():
	case left > 0:
		l.looks = l.due
		l.timer.Reset(left)
	default:
		l.end(context.DeadlineExceeded)
	}
}

// rest lets go of what there is, when the connection is given up.
func (l *limit) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx == nil {
		return
	}
	l.end(nil)
	l.timer.Stop()
	l.looks = time.Time{}
}
