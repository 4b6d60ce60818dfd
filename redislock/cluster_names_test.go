package redislock_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
)

var bracedNames = []string{
	"{", "}", "{}", "}{", "{{}}", "a{b}c", "a{b}c{d}", "{}{a}", "a{}b{c}", "{a", "a}", "{holdfast.}", "ü{ö}ä",
	"{" + strings.Repeat("x", 100) + "}",
}

// TestClusterBracedNames: whatever braces a name has, its key and all that belongs to it are
// in one slot, and different names are different locks.
func TestClusterBracedNames(t *testing.T) {
	t.Parallel()
	x := newCluster(t, testserver.ClusterOptions{})
	for _, cfg := range []redislock.Config{ungated, {Safety: redislock.SingleProcess, RawKeys: true}} {
		a, b := x.engine(cfg), x.engine(cfg)
		key := func(name string) string {
			if cfg.RawKeys {
				return name
			}
			return redislock.DefaultPrefix + name
		}
		var held []driver.Claim
		for _, name := range bracedNames {
			x.handsOver(a, b, ask(name, time.Minute))
			reader := ask(name, time.Minute)
			reader.Mode = driver.Shared
			shared := x.take(a, reader)
			w := x.wait(b, ask(name, time.Minute))
			slot := testserver.Slot(key(name))
			reply, err := x.Node(slot).Do("CLUSTER", "GETKEYSINSLOT", fmt.Sprint(slot), "100")
			if err != nil {
				t.Fatal(err)
			}
			about := 0
			for _, k := range reply.([]any) {
				if strings.HasSuffix(k.(string), key(name)) {
					about++
				}
			}
			if about < 4 { // the key, the queue, the book and its ends
				t.Errorf("%q: %d of its keys are in its slot, of %v", name, about, reply)
			}
			x.release(a, shared)
			claim := w.granted()
			if err := b.Renew(t.Context(), []driver.Claim{claim})[0]; err != nil { // what was pushed is short
				t.Fatal(err)
			}
			held = append(held, claim)
		}
		ctx, cancel := bounded()
		infos, err := a.List(ctx, "", 1000)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, info := range infos {
			found = append(found, info.Name)
		}
		want := slices.Sorted(slices.Values(bracedNames))
		if !slices.Equal(found, want) {
			t.Errorf("List found %q, want %q", found, want)
		}
		for _, c := range held {
			x.release(b, c)
		}
	}
}

// TestClusterPublicAPI: LockAll, List, Inspect and Break work over slots on all masters.
func TestClusterPublicAPI(t *testing.T) {
	t.Parallel()
	x := newCluster(t, testserver.ClusterOptions{})
	a, err := holdfast.New(x.engine(ungated), holdfast.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := holdfast.New(x.engine(ungated), holdfast.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx, cancel := bounded()
	defer cancel()
	var names []string
	var ours, theirs []*holdfast.Mutex
	for _, slot := range []int{0, 5000, 6000, 10000, 11000, 16000} {
		names = append(names, slotNames()[slot])
		ours = append(ours, a.Mutex(slotNames()[slot]))
		theirs = append(theirs, b.Mutex(slotNames()[slot]))
	}
	slices.Reverse(theirs)
	all, err := holdfast.LockAll(ctx, ours...)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		l, err := holdfast.LockAll(ctx, theirs...)
		if err == nil {
			err = l.Unlock()
		}
		done <- err
	}()
	infos, err := b.List(ctx, "", 100)
	if err != nil || len(infos) != len(names) {
		t.Errorf("List: %d entries, %v", len(infos), err)
	}
	if limited, err := b.List(ctx, "", 2); err != nil || len(limited) != 2 {
		t.Errorf("List of 2: %+v %v", limited, err)
	}
	for _, name := range names {
		if info, err := b.Inspect(ctx, name); err != nil || len(info.Holders) != 1 {
			t.Errorf("Inspect %q: %+v %v", name, info, err)
		}
	}
	if err := all.Unlock(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Errorf("LockAll of who waited: %v", err)
	}
	l, err := ours[3].Lock(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Break(ctx, names[3], holdfast.Break{Reason: "test"}); err != nil {
		t.Errorf("Break: %v", err)
	}
	if _, err := b.Mutex(names[3]).TryLock(ctx); err != nil {
		t.Errorf("after Break: %v", err)
	}
	_ = l.Unlock()
}
