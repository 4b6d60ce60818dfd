package interoptest

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/testserver"
)

func TestMain(m *testing.M) { os.Exit(testserver.Main(m, 32)) }

// encounters are what has to go well with every library.
var encounters = []struct {
	name string
	run  func(*meeting)
}{
	{"Exclusion", exclusion},
	{"WaitForTheirRelease", waitForTheirRelease},
	{"WaitForTheirEnd", waitForTheirEnd},
	{"WaitWhileTheyExtend", waitWhileTheyExtend},
	{"TheyAreLate", theyAreLate},
	{"WeAreLate", weAreLate},
	{"WeAreRobbed", weAreRobbed},
	{"SharesKeepThemOut", sharesKeepThemOut},
	{"TheyBarge", theyBarge},
}

func TestLibraries(t *testing.T) {
	server := testserver.Redis(t, testserver.RedisOptions{})
	for _, lib := range libraries {
		t.Run(lib.name, func(t *testing.T) {
			t.Parallel()
			them := lib.open(t, server)
			meet := func(encounter string, run func(*meeting)) {
				t.Run(encounter, func(t *testing.T) {
					t.Parallel()
					name := lib.name + ":" + encounter
					run(&meeting{
						T: t, library: lib, them: them, redis: dial(t, server), server: server,
						name: name, key: lib.prefix + name,
					})
				})
			}
			for _, e := range encounters {
				meet(e.name, e.run)
			}
			if lib.endless {
				meet("WithoutAnEnd", withoutAnEnd)
			}
		})
	}
}

// exclusion: who holds keeps the other out, and is let go by its own release.
func exclusion(m *meeting) {
	hf, ctx := m.client(), m.context()
	mu := hf.Mutex(m.name)

	theirs := m.theyTake(long)
	_, err := mu.TryLock(ctx)
	var e *holdfast.Error
	if !errors.Is(err, holdfast.ErrHeld) || !errors.As(err, &e) || e.Holder == nil {
		m.Fatalf("our try: %v, want ErrHeld and its holder", err)
	}
	if h := e.Holder; !strings.HasPrefix(h.Owner, "another client") || h.Fence != 0 || !h.Since.IsZero() {
		m.Errorf("holder %+v, want another client of which no more is known", h)
	}
	if left := time.Until(e.Holder.Until); left < long/2 || left > long+time.Minute {
		m.Errorf("holder until %v from now, want about %v", left, long)
	}
	info, err := hf.Inspect(ctx, m.name)
	if err != nil || len(info.Holders) != 1 {
		m.Fatalf("Inspect: %+v, %v", info, err)
	}
	list, err := hf.List(ctx, m.name, 10)
	if err != nil || (len(list) == 1) != (m.prefix != "") {
		m.Errorf("List with prefix %q: %+v, %v", m.prefix, list, err)
	}
	m.secret(m.value(), e.Error(), e, *e.Holder, info, info.Holders[0], list)
	m.theyRelease(theirs)

	ours := m.weTake(mu)
	m.theyAreRefused()
	if _, err := hf.Mutex(m.name).TryLock(ctx); !errors.As(err, &e) || e.Holder == nil || e.Holder.Owner != "ours" {
		m.Errorf("our second try: %v, want ErrHeld by ours", err)
	}
	m.weRelease(ours)
	m.theyRelease(m.theyTake(long))
}

// secret fails when one of the things shown to people contains the value: who knows it can
// release the lock.
func (m *meeting) secret(value string, shown ...any) {
	m.Helper()
	if value == "" {
		m.Fatal("they left no value")
	}
	for _, s := range shown {
		for _, text := range []string{fmt.Sprintf("%+v", s), fmt.Sprintf("%#v", s)} {
			for _, form := range []string{value, hex.EncodeToString([]byte(value)), strings.Trim(fmt.Sprintf("%q", value), `"`)} {
				if strings.Contains(text, form) {
					m.Errorf("their value is shown in %s", text)
				}
			}
		}
	}
}

// waitForTheirRelease: they tell nobody of a release, so our waiter has to look by itself.
func waitForTheirRelease(m *meeting) {
	hf := m.client()
	theirs := m.theyTake(long)
	done := m.weWait(hf)
	m.weAreWaiting(done)
	m.theyRelease(theirs)
	m.weRelease(m.weGet(done, soon))
}

func waitForTheirEnd(m *meeting) {
	hf, ttl := m.client(), 1500*time.Millisecond
	start := time.Now()
	m.theyTake(ttl)
	l, err := hf.Mutex(m.name).Lock(m.context())
	if err != nil {
		m.Fatal(err)
	}
	// Redis counts whole milliseconds.
	if got := time.Since(start); got < ttl-2*time.Millisecond {
		m.Errorf("our lock was granted %v after they took theirs for %v", got, ttl)
	}
	m.theyAreRefused()
	m.weRelease(l)
}

func waitWhileTheyExtend(m *meeting) {
	hf, ttl := m.client(), 4*time.Second
	theirs := m.theyTake(ttl)
	end := time.Now().Add(ttl)
	done := m.weWait(hf)
	if ok, err := theirs.extend(long); err != nil || !ok {
		m.Fatalf("their extension: %v, %v", ok, err)
	}
	if left, err := m.redis.PTTL(context.Background(), m.key).Result(); err != nil || left < long/2 {
		m.Fatalf("after their extension their lock has %v (%v), want about %v", left, err, long)
	}
	m.until("their lock would have ended", func() bool { return time.Since(end) > time.Second })
	m.weAreWaiting(done)
	m.theyRelease(theirs)
	m.weRelease(m.weGet(done, soon))
}

// withoutAnEnd: a lock that never runs out is held, and waited for, like any other.
func withoutAnEnd(m *meeting) {
	hf := m.client()
	theirs := m.theyTake(0)
	if left := m.redis.PTTL(context.Background(), m.key).Val(); left != -1 {
		m.Fatalf("PTTL of their lock is %d, want -1", left)
	}
	_, err := hf.Mutex(m.name).TryLock(m.context())
	var e *holdfast.Error
	if !errors.Is(err, holdfast.ErrHeld) || !errors.As(err, &e) || e.Holder == nil || !e.Holder.Until.IsZero() {
		m.Fatalf("our try: %+v, want ErrHeld by somebody without an end", err)
	}
	done := m.weWait(hf)
	m.theyRelease(theirs)
	m.weRelease(m.weGet(done, soon))

	// Where the holder is dead somebody has to break it.
	theirs = m.theyTake(0)
	if _, err := hf.Break(m.context(), m.name, holdfast.Break{Reason: "its holder is dead"}); err != nil {
		m.Fatal(err)
	}
	ours := m.weTake(hf.Mutex(m.name))
	if ok, err := theirs.release(); err != nil || ok {
		m.Errorf("their release after the break: %v, %v, want a refusal", ok, err)
	}
	m.weRelease(ours)
}

// theyAreLate: their lock has ended and is ours; they do not know.
func theyAreLate(m *meeting) {
	hf := m.client()
	theirs := m.theyTake(time.Second)
	m.until("their lock ends", func() bool { return m.value() == "" })
	ours := m.weTake(hf.Mutex(m.name))
	value := m.value()

	if ok, err := theirs.extend(long); err != nil || ok {
		m.Errorf("their late extension: %v, %v, want a refusal", ok, err)
	}
	if ok, err := theirs.release(); err != nil || ok && !m.silent {
		m.Errorf("their late release: %v, %v, want a refusal", ok, err)
	}
	if v := m.value(); v != value {
		m.Fatalf("the key has gone from %q to %q", value, v)
	}
	if err := ours.Extend(m.context(), long); err != nil {
		m.Errorf("our extension: %v", err)
	}
	m.theyAreRefused()
	m.weRelease(ours)
}

// weAreLate: our lock has run out and is theirs. We know before they can have it.
func weAreLate(m *meeting) {
	hf := m.client()
	ours := m.weTake(hf.Mutex(m.name, holdfast.WithTTL(2*time.Second), holdfast.WithoutRenewal()))
	theirs := m.theyInsist(func() bool { return false })
	if cause := context.Cause(ours.Context()); !errors.Is(cause, holdfast.ErrLost) {
		m.Errorf("they have the lock and the cause of the end of our lease is %v, want ErrLost", cause)
	}
	value := m.value()
	if err := ours.Unlock(); !errors.Is(err, holdfast.ErrLost) {
		m.Errorf("our late unlock: %v, want ErrLost", err)
	}
	if err := ours.Extend(m.context(), long); err == nil {
		m.Error("our late extension went through")
	}
	if v := m.value(); v != value {
		m.Fatalf("the key has gone from %q to %q", value, v)
	}
	m.theyRelease(theirs)
}

// weAreRobbed: our key was deleted and they took the lock. We are told by our next renewal, or
// when we give it back before that, and leave theirs alone.
func weAreRobbed(m *meeting) {
	mu := m.client().Mutex(m.name, holdfast.WithTTL(2*time.Second))
	rob := func() (ours *holdfast.Lease, theirs lock, value string) {
		ours = m.weTake(mu)
		if err := m.redis.Del(context.Background(), m.key).Err(); err != nil {
			m.Fatal(err)
		}
		return ours, m.theyTake(long), m.value()
	}
	untouched := func(theirs lock, value string) {
		m.Helper()
		if v := m.value(); v != value {
			m.Fatalf("the key has gone from %q to %q", value, v)
		}
		if left := m.redis.PTTL(context.Background(), m.key).Val(); left < long/2 {
			m.Errorf("their lock has %v left, want about %v", left, long)
		}
		m.theyRelease(theirs)
	}

	ours, theirs, value := rob()
	if err := ours.Unlock(); !errors.Is(err, holdfast.ErrLost) {
		m.Errorf("our unlock: %v, want ErrLost", err)
	}
	untouched(theirs, value)

	ours, theirs, value = rob()
	select {
	case <-ours.Context().Done():
	case <-time.After(soon):
		m.Error("our lease lives on beside theirs")
	}
	if err := ours.Unlock(); !errors.Is(err, holdfast.ErrLost) {
		m.Errorf("our unlock: %v, want ErrLost", err)
	}
	untouched(theirs, value)
}

// sharesKeepThemOut: to an exclusive lock of theirs, readers and permits are one holder.
func sharesKeepThemOut(m *meeting) {
	hf, ctx := m.client(), m.context()
	one, two := m.client().RWMutex(m.name), m.client().RWMutex(m.name)
	read := func(rw *holdfast.RWMutex) *holdfast.Lease {
		m.Helper()
		l, err := rw.RLock(ctx)
		if err != nil {
			m.Fatal(err)
		}
		m.theyAreRefused()
		return l
	}
	first, second := read(one), read(two)
	m.weRelease(first)
	m.theyAreRefused()
	m.weRelease(second)

	theirs := m.theyTake(long)
	permits := hf.Semaphore(m.name, 5)
	if _, err := one.TryRLock(ctx); !errors.Is(err, holdfast.ErrHeld) {
		m.Errorf("our reader beside them: %v, want ErrHeld", err)
	}
	if _, err := permits.TryAcquire(ctx, 1); !errors.Is(err, holdfast.ErrHeld) {
		m.Errorf("our permit beside them: %v, want ErrHeld", err)
	}
	m.theyRelease(theirs)

	some, err := permits.Acquire(ctx, 2)
	if err != nil {
		m.Fatal(err)
	}
	m.theyAreRefused()
	m.weRelease(some)
	m.theyRelease(m.theyTake(long))
}

// theyBarge: they do not know our queue and take the lock whenever it is free. Nobody holds it
// beside another, and all of ours are served.
func theyBarge(m *meeting) {
	const processes, each, barges = 3, 3, 3
	var inside, overlaps, served, barged atomic.Int32
	hold := func() {
		if inside.Add(1) != 1 {
			overlaps.Add(1)
		}
		time.Sleep(5 * time.Millisecond)
		inside.Add(-1)
	}
	theirs := m.theyTake(long)
	ctx, cancel := context.WithCancel(m.context())
	var ours sync.WaitGroup
	defer ours.Wait()
	defer cancel()
	looker := m.client()
	for range processes {
		hf := m.client()
		for range each { // goroutines of one process hand the lock on among themselves
			ours.Go(func() {
				err := hf.Mutex(m.name).Do(ctx, func(context.Context, *holdfast.Lease) error { hold(); return nil })
				if err != nil {
					m.Errorf("our lock: %v", err)
				}
				served.Add(1)
			})
		}
	}
	m.until("ours wait", func() bool {
		info, err := looker.Inspect(ctx, m.name)
		return err == nil && info.Waiters == processes
	})
	for {
		hold()
		m.theyRelease(theirs)
		if barged.Load() == barges {
			break
		}
		// What they let go of is free until one of ours looks.
		if theirs = m.theyInsist(func() bool { return served.Load() == processes*each }); theirs == nil {
			break
		}
		barged.Add(1)
	}
	ours.Wait()
	if n := overlaps.Load(); n > 0 {
		m.Errorf("%d times two held the lock at once", n)
	}
	if n := served.Load(); n != processes*each {
		m.Errorf("%d of ours were served, want %d", n, processes*each)
	}
	m.Logf("they barged in %d times", barged.Load())
}

// theyInsist has them try until they get the lock, or nobody else wants it any more.
func (m *meeting) theyInsist(over func() bool) (theirs lock) {
	m.Helper()
	m.until("they get the lock", func() bool {
		l, err := m.them.acquire(m.key, long)
		if err == nil {
			theirs = l
		} else if !errors.Is(err, errHeld) {
			m.Fatal(err)
		}
		return err == nil || over()
	})
	return theirs
}
