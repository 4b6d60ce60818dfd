package interoptest

import (
	"testing"

	"github.com/holdfast-go/holdfast"
)

// reserved is the highest fence that the table says may be in use.
func (l *lab) reserved() int64 {
	l.Helper()
	return l.number("SELECT fence FROM " + l.prefix + " WHERE k=''")
}

// No fence is told to anybody before it is on disk that it may be in use.
func faultFencesReserved(l *lab) {
	c := l.process()
	for range 3 {
		lease := l.lock(c, "name")
		if top := l.reserved(); top < lease.Fence() {
			l.Errorf("fence %d, and only those up to %d are reserved", lease.Fence(), top)
		}
		l.unlock(lease)
		l.drawTickets()
	}
}

// A server that was started again begins above all fences that may have been in use, though its clock
// is far below.
func TestFaultRestartWithClockBehind(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const ahead = 1e15 // µs
	l.unlock(l.lock(l.process(), "name"))
	l.do("UPDATE " + l.prefix + " SET fence=fence+1000000000000000 WHERE k=''")
	top := l.reserved()
	l.server.Restart()
	if lease := l.lock(l.process(), "name"); lease.Fence() <= top || top < ahead {
		t.Errorf("fence %d after a restart, and %d may have been in use", lease.Fence(), top)
	}
}

// Who waits draws its fence when the wait is over: it is above those that were drawn meanwhile.
func faultTicketAfterTheWait(l *lab) {
	holder, other := l.process(), l.process()
	held := l.lock(holder, "name")
	w := l.waiter(other, "name")
	l.drawTickets()
	meanwhile := l.lock(holder, "another")
	l.unlock(held)
	if next := w.granted(); next.Fence() <= meanwhile.Fence() {
		l.Errorf("fence %d after a wait, %d was granted while it lasted", next.Fence(), meanwhile.Fence())
	}
}

// The first permit of a table is respected by those who have connections from before there was any.
func faultFirstPermit(l *lab) {
	before, other := l.process(), l.process()
	l.unlock(l.lock(before, "another"))
	permit, err := other.Semaphore("name", 2).TryAcquire(l.context(), 1)
	if err != nil {
		l.Fatal(err)
	}
	if lease, err := before.Mutex("name").TryLock(l.context()); err == nil {
		l.Errorf("locked with fence %d beside a permit", lease.Fence())
	} else {
		l.says(err, holdfast.ErrHeld)
	}
	l.unlock(permit)
	lease := l.lock(before, "name")
	if _, err := other.Semaphore("name", 2).TryAcquire(l.context(), 1); err == nil {
		l.Error("a permit beside a lock")
	} else {
		l.says(err, holdfast.ErrHeld)
	}
	l.unlock(lease)
}

// Other processes are told of what was locked a moment ago, and of what was locked again. The row that tells
// them is gone before its session takes the lock again: it would be taken for that of the new lock.
func faultTold(l *lab) {
	c, other := l.process(), l.process()
	rows := "SELECT COUNT(*) FROM " + l.prefix + " WHERE k=?"
	for range 3 {
		lease := l.lock(c, "name")
		if n := l.number(rows, l.key("name")); n > 0 {
			l.Errorf("fence %d is locked beside a row of a lock that is over", lease.Fence())
		}
		if _, err := other.Mutex("name").TryLock(l.context()); err == nil {
			l.Error("locked twice")
		} else {
			l.says(err, holdfast.ErrHeld, "lab")
		}
		info, err := other.Inspect(l.context(), "name")
		if err != nil {
			l.Fatal(err)
		}
		if len(info.Holders) != 1 || info.Fence != lease.Fence() || info.Holders[0].Owner != "lab" {
			l.Errorf("fence %d is inspected as %+v", lease.Fence(), info)
		}
		if l.number(rows, l.key("name")) != 1 {
			l.Error("others were told, and not by a row")
		}
		l.unlock(lease)
	}
	l.eventually("the row of the last lock is gone", func() bool { return l.number(rows, l.key("name")) == 0 })
	first := l.lock(c, "first")
	list, err := other.List(l.context(), "", 10)
	if err != nil {
		l.Fatal(err)
	}
	if len(list) != 1 || list[0].Name != "first" || list[0].Fence != first.Fence() {
		l.Errorf("listed: %+v", list)
	}
	l.unlock(first)
}
