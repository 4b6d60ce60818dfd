package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/holdfast-go/holdfast"
)

// reapTimeout bounds the wait for processes that were killed. What takes longer hangs in the
// kernel, or was left as a zombie by a process 1 that does not collect any.
const reapTimeout = time.Second

// wakeDelay is when the command is continued after a stop that did not stop us, because no
// shell could wake us. Where it did, the time is over when we wake up.
const wakeDelay = 100 * time.Millisecond

const lostHint = "the command may have gone on without the lock for a while: only a resource that checks HOLDFAST_FENCE is safe from that"

// supervisor watches over a command that runs under a lock.
type supervisor struct {
	app       *app
	held      *held
	child     *process
	signals   <-chan os.Signal
	killAfter time.Duration

	lost   bool // the lock, while the command ran
	stops  int  // INT and TERM so far
	killed bool

	// Timers, nil while they do not run.
	killAt <-chan time.Time // when the group is killed
	giveUp <-chan time.Time // when a group that was killed is waited for no longer
	wake   <-chan time.Time // when we are awake again after we stopped along with the command
}

// supervise waits for the command to end and returns the code to exit with.
func (s *supervisor) supervise() int {
	lease := s.held.lease.Context()
	for ended := false; !ended; {
		lost, giveUp := lease.Done(), s.giveUp
		if s.lost {
			lost = nil // once is enough
		} else {
			giveUp = nil // the lock is ours while the command runs, even if it will not die
		}
		select {
		case c := <-s.child.changes:
			if ended = c.ended; !ended && s.child.stopped(c) {
				s.wake = time.After(wakeDelay)
			}
		case sig := <-s.signals:
			s.handle(sig)
		case <-s.wake:
			s.resume()
		case <-lost:
			s.lose()
		case <-s.killAt:
			s.kill()
		case <-giveUp:
			s.app.warnf("the command cannot be killed")
			return exitLost
		}
	}
	if lease.Err() != nil && !s.lost {
		s.lose()
	}
	code := s.child.reap()
	if !s.lost {
		return code
	}
	s.endGroup()
	return exitLost
}

// handle passes a signal on.
func (s *supervisor) handle(sig os.Signal) {
	if isContinue(sig) {
		s.resume()
		return
	}
	if isStop(sig) {
		if s.stops++; s.stops == 2 {
			s.startKilling()
		}
	}
	s.child.signal(sig)
}

// resume continues the command. When the lock was lost while both of us were stopped, the
// command is told to end before it runs on.
func (s *supervisor) resume() {
	s.wake = nil
	if s.held.lease.Remaining() == 0 && !s.lost {
		s.lose()
	}
	s.child.resume()
}

// lose tells the group that the lock is gone.
func (s *supervisor) lose() {
	s.lost = true
	why := context.Cause(s.held.lease.Context())
	if why == nil {
		why = holdfast.ErrLost // our timers have not noticed yet
	}
	s.child.terminate() // first of all: stderr may block
	s.startKilling()
	s.app.complain(fmt.Errorf("the lock %q was lost, stopping the command: %w", s.held.lease.Name(), why), lostHint)
}

// startKilling starts the countdown of --kill-after.
func (s *supervisor) startKilling() {
	if s.killAt == nil && !s.killed {
		s.killAt = time.After(s.killAfter)
	}
}

func (s *supervisor) kill() {
	s.killAt, s.killed = nil, true
	s.child.kill()
	s.giveUp = time.After(reapTimeout)
}

// endGroup waits until everything that the command started in its group has ended as well,
// and kills it when its time is up.
func (s *supervisor) endGroup() {
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !s.child.groupGone() {
		select {
		case <-s.killAt:
			s.kill()
		case <-s.giveUp:
			s.app.warnf("processes of the command are still there after they were killed")
			return
		case <-poll.C:
		}
	}
}
