//go:build linux || darwin

package driver

import (
	"sync/atomic"
	"testing"
	"time"
)

// machine is a machine whose clocks the test moves: a suspension moves two of them.
type machine struct {
	running, slept time.Duration
	asked          int
	stall          time.Duration // passes while the kernel is asked
	last           atomic.Pointer[asleep]
}

func (m *machine) read() time.Time { return origin.Add(m.running) } // moves both readings

func (m *machine) boot() time.Duration {
	m.asked++
	m.running += m.stall
	return 1000*time.Hour + m.running + m.slept
}

func (m *machine) now() time.Duration { return time.Duration(bootNow(m.read, &m.last, m.boot)) }

func TestBootClockAsksOnce(t *testing.T) {
	m := &machine{}
	start := m.now()
	for range 100 {
		m.running += time.Second
		m.now()
	}
	if m.asked != 1 || m.now()-start != 100*time.Second {
		t.Errorf("asked %d times, %v passed", m.asked, m.now()-start)
	}
}

// What the kernel told a thread that was held up is not kept: the clock would be too fast for
// others, and slow when it is right again.
func TestBootClockKeepsNoBlurredAnswer(t *testing.T) {
	m := &machine{stall: 10 * time.Millisecond}
	start := m.now()
	if m.last.Load() != nil {
		t.Error("a blurred answer was kept")
	}
	m.stall = 0
	if d := m.now() - start; d != 0 || m.asked != 2 {
		t.Errorf("%v passed, asked %d times", d, m.asked)
	}
}

// A suspension moves the wall clock away from the monotonic one, and the kernel is asked.
func TestBootClockNoticesSuspension(t *testing.T) {
	m := &machine{}
	start := m.now()
	a := *m.last.Load()
	m.slept = time.Hour
	a.wall -= time.Hour // as if the wall clock had been an hour behind then
	m.last.Store(&a)
	if d := m.now() - start; d != time.Hour || m.asked != 2 {
		t.Errorf("%v passed, asked %d times; want 1h and 2", d, m.asked)
	}
	if m.now(); m.asked != 2 {
		t.Error("asked again without a reason")
	}
}

func TestBootClockIsTheKernels(t *testing.T) {
	for range 1000 {
		before, now, after := kernelBootTime(), BootClock().Now(), kernelBootTime()
		if time.Duration(now) < before-blur || time.Duration(now) > after+blur {
			t.Fatalf("%v is not between %v and %v", time.Duration(now), before, after)
		}
	}
}

func BenchmarkBootClock(b *testing.B) {
	b.Run("cached", func(b *testing.B) {
		for b.Loop() {
			BootClock().Now()
		}
	})
	b.Run("kernel", func(b *testing.B) {
		for b.Loop() {
			kernelBootTime()
		}
	})
}
