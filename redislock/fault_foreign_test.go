package redislock_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/testserver"
)

// Keys of another type, and companions that somebody wrote over: their requests fail with
// reason, and those that travelled in the same call do not notice.
func TestFaultWrongType(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	c := l.process()
	l.do("RPUSH", "holdfast:list", "x")
	for _, companion := range []string{"q", "w", "g", "e"} {
		l.do("SET", "holdfast."+companion+":holdfast:over "+companion, "written over")
	}
	l.unlock(l.lock(c, "warm"))
	held := l.lock(c, "held", holdfast.WithoutRenewal())
	read, err := c.RWMutex("read").RLock(l.patience())
	if err != nil {
		l.Fatal(err)
	}
	results := map[string]chan error{}
	call := func(name string, f func() error) {
		done := make(chan error, 1)
		results[name] = done
		go func() { done <- f() }()
	}
	try := func(name string) func() error {
		return func() error {
			lease, err := c.Mutex(name).TryLock(l.patience())
			if err == nil {
				err = lease.Unlock()
			}
			return err
		}
	}
	l.server.Pause() // what is asked meanwhile travels together
	call("list", try("list"))
	call("list, shared", func() error { return second(c.RWMutex("list").TryRLock(l.patience())) })
	for _, companion := range []string{"q", "w", "g", "e"} {
		name := "over " + companion
		call(name, func() error { return second(c.Mutex(name).TryLock(l.patience())) })
		call(name+", shared", func() error { return second(c.RWMutex(name + " ").TryRLock(l.patience())) })
	}
	for i := range 20 {
		call(fmt.Sprintf("good %d", i), try(fmt.Sprintf("good %d", i)))
		call(fmt.Sprintf("good reader %d", i), func() error {
			lease, err := c.RWMutex(fmt.Sprintf("reader %d", i)).TryRLock(l.patience())
			if err == nil {
				err = lease.Unlock()
			}
			return err
		})
	}
	call("good extend", func() error { return held.Extend(l.patience(), labTTL) })
	call("good unlock", func() error { return read.Unlock() })
	time.Sleep(100 * time.Millisecond)
	l.server.Resume()
	for name, done := range results {
		err := <-done
		switch {
		case strings.HasPrefix(name, "good") && err != nil:
			l.Errorf("%s: %v", name, err)
		case strings.HasPrefix(name, "list"):
			l.failed(err, holdfast.ErrInvalid, holdfast.NotApplied, "choose another name or prefix")
		}
	}
	l.unlock(held)
	if _, err := c.Inspect(l.patience(), "list"); !errors.Is(err, holdfast.ErrInvalid) {
		l.Errorf("inspect: %v", err)
	}
	if l.do("LLEN", "holdfast:list") != int64(1) {
		l.Error("the list was changed")
	}
}

// Somebody wrote over the books of a group: requests about it fail, others in the same call
// are carried out and answered.
func TestFaultBrokenBooks(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	c, other := l.process(), l.process()
	for _, companion := range []string{"q", "g", "e"} {
		name := "books " + companion
		if _, err := c.RWMutex(name).RLock(l.patience()); err != nil {
			l.Fatal(err)
		}
		l.do("DEL", "holdfast."+companion+":holdfast:"+name)
		l.do("SET", "holdfast."+companion+":holdfast:"+name, "written over")
	}
	l.unlock(l.lock(other, "warm"))
	bad, good := make(chan error, 3), make(chan error, 20)
	l.server.Pause()
	for _, companion := range []string{"q", "g", "e"} {
		go func() { bad <- second(other.RWMutex("books " + companion).TryRLock(l.patience())) }()
	}
	for i := range cap(good) {
		go func() {
			lease, err := other.Mutex(fmt.Sprintf("good %d", i)).TryLock(l.patience())
			if err == nil {
				err = lease.Unlock()
			}
			good <- err
		}()
	}
	time.Sleep(100 * time.Millisecond)
	l.server.Resume()
	for range cap(good) {
		if err := <-good; err != nil {
			l.Errorf("beside broken books: %v", err)
		}
	}
	for range cap(bad) {
		if err := <-bad; err != nil && !errors.Is(err, holdfast.ErrInvalid) && !errors.Is(err, holdfast.ErrUnavailable) && !errors.Is(err, holdfast.ErrHeld) {
			l.Errorf("broken books: %v", err)
		}
	}
}

// A lock of another library, with a value that is no text, with a TTL and without: nobody gets
// it meanwhile, and its end is noticed though nobody tells.
func TestFaultForeignHolder(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	c := l.process()
	const value = "\xff\xfe\x00 secret of the other"
	for _, f := range []struct {
		name string
		take []string
		end  func()
	}{
		{"expires", []string{"PX", "1500"}, func() {}},
		{"deletes", []string{"PX", "60000"}, func() { l.do("DEL", "holdfast:deletes") }},
		{"no TTL", nil, func() { l.do("DEL", "holdfast:no TTL") }},
		{"looks like ours", nil, func() { l.do("DEL", "holdfast:looks like ours") }},
	} {
		v := value
		if f.name == "looks like ours" {
			v = "owner 0123456789abcdefghijkl 99999999999999999999 1.5"
		}
		l.do(append([]string{"SET", "holdfast:" + f.name, v}, f.take...)...)
		_, err := c.Mutex(f.name).TryLock(l.patience())
		l.failed(err, holdfast.ErrHeld, holdfast.NotApplied, "another client")
		if strings.Contains(err.Error(), "secret") {
			l.Errorf("the error tells the value: %v", err)
		}
		info, err := c.Inspect(l.patience(), f.name)
		if err != nil || len(info.Holders) != 1 || info.Holders[0].Until.IsZero() != (f.take == nil) {
			l.Errorf("inspect: %+v, %v", info, err)
		}
		w := l.waiter(c, f.name)
		if got := l.do("GET", "holdfast:"+f.name); got != v {
			l.Errorf("the value became %q", got)
		}
		before := l.scripts()
		f.end()
		l.unlock(w.granted())
		if n := l.scripts() - before; n > 20 {
			l.Errorf("%s: %d script calls to notice the end", f.name, n)
		}
	}
}

// Another library takes what is held, after a release that it did not make: its lock is not
// touched by the one that lost it.
func TestFaultForeignTakeOver(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	c := l.clientWith(l.engineAt(l.server.Addr(), ""), time.Second)
	lease := l.lock(c, "name")
	l.do("SET", "holdfast:name", "of another library")
	<-lease.Context().Done()
	l.failed(lease.Unlock(), holdfast.ErrLost, holdfast.NotApplied)
	l.failed(lease.Extend(l.patience(), time.Second), holdfast.ErrNotHeld, holdfast.NotApplied)
	if v, pttl := l.key("name"), l.do("PTTL", "holdfast:name"); v != "of another library" || pttl != int64(-1) {
		l.Errorf("the key became %q, with %v ms to live", v, pttl)
	}
}
