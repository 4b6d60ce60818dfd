package pglock

import (
	"context"
	"errors"
)

// A caller who finds the session at rest carries out its statement itself: to hand it to the
// session's goroutine, and to be woken by it, are two switches, each of which may wake a thread, and
// more than the server takes for a lock. What is asked meanwhile queues up, and is the goroutine's as
// soon as the caller has its own answer.
//
// Who is in a statement cannot leave it before the server answers: only the end of the session ends
// the driver's read. So this is for callers for whom that is as good as leaving. Either their context
// cannot end, and then they would wait for the answer in any case, until tend gives the session up. Or
// nothing else lives in the session: then it is ended when their context is, the server stays silent,
// and the time that everybody gives it then is over. Nobody loses anything by that. Nothing can come
// to live there meanwhile, because the session does one thing at a time; and what was granted and is
// not in the books yet is counted from before it was sent.
//
// All of this needs a driver that returns when the context of its statement ends, see prompt.

var (
	errLeft     = errors.New("the server did not answer, and the only one who waited for it has left")
	errPanicked = errors.New("the database driver panicked")
)

// perform has r carried out in s, and returns as await does. own is how many of the shares in s are
// of no use any more when ctx ends.
func (e *Engine) perform(ctx context.Context, s *session, r *request, own int) bool {
	if r.over.Load() || s.lead(ctx, r, own) {
		return true
	}
	s.submit(r)
	return e.await(ctx, s, r)
}

// performWait has r wait in s for a lock, and returns when that is over: at the latest soon after the
// end of ctx.
func (e *Engine) performWait(ctx context.Context, s *session, r *request) {
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { e.cancelWait(s, r); close(over) })
	defer func() {
		if !stop() {
			<-over // a signal that is under way must not hit what s does next
		}
	}()
	r.waits = true
	if !s.lead(ctx, r, 0) {
		s.submit(r)
		<-r.done
	}
}

// lead carries out r on the goroutine of its caller, where that may be, and reports whether it was.
// A wait is no matter of ctx: its caller has the server end it when it is to.
func (s *session) lead(ctx context.Context, r *request, own int) bool {
	s.mu.Lock()
	alone := s.lives <= own
	s.mu.Unlock()
	if !s.w.prompt || !r.waits && (!alone && ctx.Done() != nil || ctx.Err() != nil) {
		return false
	}
	s.mu.Lock()
	if s.led || len(s.flight) > 0 || len(s.queue) > 0 || s.ended != nil || alone && s.lives > own {
		s.mu.Unlock()
		return false
	}
	r.itself[0] = r
	s.flight, s.led = r.itself[:], true
	s.departs()
	s.mu.Unlock()
	if !r.waits {
		s.leavers.Enter(ctx)
	}

	answered := false
	defer func() {
		if !answered { // nobody knows what state the driver has left the connection in
			s.finish(errPanicked)
		}
		s.resign()
	}()
	err := s.carryOut(r.itself[:])
	answered = true
	if err != nil {
		s.finish(err)
	}
	<-r.done // by carryOut, or by who has ended the session
	return true
}

// resign ends what lead began. Only now may others use the connection, or close it. That nothing is in
// flight any more is not enough for that: carryOut has seen to it before the answer is handed out, and
// what somebody else had put there since would be taken for nothing here.
func (s *session) resign() {
	s.leavers.Exit()
	s.mu.Lock()
	s.flight, s.led = nil, false
	rouse := len(s.queue) > 0 || s.ended != nil
	s.mu.Unlock()
	if rouse {
		s.rouse()
	}
}
