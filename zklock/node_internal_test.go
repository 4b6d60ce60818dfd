package zklock

import (
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/holdfast-go/holdfast/driver"
)

// TestQueueOrder: the server's counter overflows, and its numbers then have a sign.
func TestQueueOrder(t *testing.T) {
	q := queueOf([]string{
		"_c_a-lock--2147483647", "_c_b-lock-2147483646", "_c_c-__READ__-2147483648", "_c_d-__WRIT__2147483647",
		"leases", "locks", "lock-1", "_c_e-lease-0000000001", "lock-00000000010",
	})
	var order string
	for _, e := range q {
		order += e.name[3:4]
	}
	if order != "bdca" {
		t.Errorf("order is %q, want bdca", order)
	}
}

// TestQueueReadsTheLastNumber: a name may contain what others begin their numbers with.
func TestQueueReadsTheLastNumber(t *testing.T) {
	e, ok := parseEntry("_c_lock-0000000009-lock-0000000001")
	if !ok || e.seq != 1 || e.mode != driver.Exclusive {
		t.Errorf("entry is %+v, %v", e, ok)
	}
}

func TestFenceOf(t *testing.T) {
	for _, zxid := range []int64{1, 0x100000001, 0x7fff_ffffffff} {
		f, err := fenceOf(zxid)
		if err != nil || f+maxSpan-1 > 1<<53-1 {
			t.Errorf("fence of 0x%x is %d, %v", zxid, f, err)
		}
		if next, err := fenceOf(zxid + 1); err == nil && next <= f+maxSpan-1 {
			t.Errorf("fences of 0x%x and the next overlap", zxid)
		}
	}
	for _, zxid := range []int64{0, -1, 0x8000_00000000, math.MaxInt64} {
		if f, err := fenceOf(zxid); err == nil {
			t.Errorf("fence of 0x%x is %d, want an error", zxid, f)
		}
	}
}

func TestLabels(t *testing.T) {
	l, ours := readLabel(labelOf(&driver.Request{Owner: `"é`, Span: 1000, Weight: 2, Limit: 3}))
	if !ours || l != (label{`"é`, maxSpan, 2, 3}) {
		t.Errorf("label is %+v, %v", l, ours)
	}
	for data, owner := range map[string]string{"10.0.0.1": "10.0.0.1", "": "", "\xff": "", "a\nb": "", `{"a":1}`: `{"a":1}`, "__REVOKE__": "__REVOKE__"} {
		if l, ours := readLabel([]byte(data)); ours || l.Owner != owner {
			t.Errorf("label of %q is %+v, %v, want owner %q", data, l, ours, owner)
		}
	}
}

func TestClassify(t *testing.T) {
	e := newEngine(Config{}.withDefaults())
	for _, c := range []struct {
		err     error
		kind    driver.Kind
		outcome driver.Outcome
	}{
		{zk.ErrConnectionClosed, driver.Unavailable, driver.Unknown},
		{zk.ErrNoServer, driver.Unavailable, driver.NotApplied},
		{zk.ErrNoAuth, driver.Unavailable, driver.NotApplied},
		{zk.ErrInvalidACL, driver.Invalid, driver.NotApplied},
		{zk.ErrShortBuffer, driver.Invalid, driver.NotApplied},
		{zk.ErrSessionExpired, driver.Unavailable, driver.NotApplied},
		{errShorter, driver.Unavailable, driver.NotApplied},
		{notConnected(nil), driver.Unavailable, driver.NotApplied},
		{errors.New("something else"), driver.Unavailable, driver.Unknown},
		{fmt.Errorf("unknown error: %v", -6), driver.Unavailable, driver.NotApplied},
		{driver.Fail(driver.Held, nil), driver.Held, driver.NotApplied},
	} {
		if d := e.classify(c.err); d.Kind != c.kind || d.Outcome != c.outcome {
			t.Errorf("%v is %v, %v, want %v, %v", c.err, d.Kind, d.Outcome, c.kind, c.outcome)
		}
	}
	if err := e.unrenewed(errGone); err.(*driver.Error).Kind != driver.Lost {
		t.Errorf("a renewal after the session: %v", err)
	}
	close(e.done)
	if d := e.classify(zk.ErrClosing); d.Kind != driver.Closed {
		t.Errorf("after Close: %v", d)
	}
}

// TestShorterSessions: servers that agree to less than the capabilities promise are not used.
func TestShorterSessions(t *testing.T) {
	s := session{floor: time.Second, timeout: time.Second / 2, id: 1, connected: true, changed: make(chan struct{})}
	if _, err := s.ready(t.Context(), 0); !errors.Is(err, errShorter) {
		t.Errorf("error is %v, want %v", err, errShorter)
	}
}
