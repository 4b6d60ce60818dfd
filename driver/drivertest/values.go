package drivertest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

var valueCases = []testCase{
	{
		name:     "value-read",
		sentence: "answer Version 0 for a name under which nothing is stored",
		needs:    []ability{values},
		run:      testValueRead,
	}, {
		name:     "value-write",
		sentence: "store any bytes, none included, and read the same ones back",
		needs:    []ability{values},
		run:      testValueWrite,
	}, {
		name:     "value-version",
		sentence: "give every write of a name a larger Version than any earlier one, deletion and expiry in between included",
		needs:    []ability{values},
		run:      testValueVersion,
	}, {
		name: "value-if",
		sentence: "refuse with Stale, change nothing and answer what is stored, when If is not AnyVersion and " +
			"not the Version stored",
		needs: []ability{values},
		run:   testValueIf,
	}, {
		name:     "value-race",
		sentence: "let exactly one of many concurrent writes with the same If happen",
		needs:    []ability{values},
		run:      testValueRace,
	}, {
		name: "value-fence",
		sentence: "refuse with Stale, change nothing and answer what is stored, when Fence is not 0 and lower " +
			"than the stored one, and keep the higher one otherwise",
		needs: []ability{values},
		run:   testValueFence,
	}, {
		name:     "value-delete",
		sentence: "leave nothing behind that can be read after a write with Delete",
		needs:    []ability{values},
		run:      testValueDelete,
	}, {
		name:     "value-ttl",
		sentence: "drop a value once its TTL is over, not earlier, and count it anew from a write",
		needs:    []ability{values},
		run:      testValueTTL,
	}, {
		name: "value-await",
		sentence: "let AwaitValue return once Version is not the one that the caller knows, whether it changed " +
			"before or during the call, by a write, a deletion or expiry",
		needs: []ability{values},
		run:   testValueAwait,
	}, {
		name: "value-cancel",
		sentence: "let AwaitValue return soon after ctx ends, with ctx's error and Unavailable, outcome not " +
			"applied",
		needs: []ability{values},
		run:   testValueCancel,
	}, {
		name:     "value-names",
		sentence: "keep the values of any two names apart, and apart from the locks of those names",
		needs:    []ability{values},
		run:      testValueNames,
	}, {
		name:     "value-close",
		sentence: "answer Closed to every call after Close, and end the calls that wait",
		needs:    []ability{values},
		run:      testValueClose,
	},
}

// readValue reads a name on an engine that has to answer.
func (x *env) readValue(e driver.Engine, name string) driver.Value {
	x.Helper()
	ctx, cancel := x.patience()
	defer cancel()
	v, err := e.(driver.Values).ReadValue(ctx, name)
	if err != nil {
		x.Fatalf("ReadValue: %v", err)
	}
	return v
}

func (x *env) tryWrite(e driver.Engine, w driver.Write) (driver.Value, error) {
	ctx, cancel := x.patience()
	defer cancel()
	return e.(driver.Values).WriteValue(ctx, w)
}

// write writes what has to be taken, and removes it when the case is over.
func (x *env) write(e driver.Engine, w driver.Write) driver.Value {
	x.Helper()
	v, err := x.tryWrite(e, w)
	if err != nil {
		x.Fatalf("WriteValue: %v", err)
	}
	x.Cleanup(func() { x.tryWrite(e, driver.Write{Name: w.Name, Delete: true, If: driver.AnyVersion}) })
	return v
}

// put writes text, whatever is there.
func (x *env) put(e driver.Engine, name, text string) driver.Value {
	x.Helper()
	return x.write(e, driver.Write{Name: name, Data: []byte(text), If: driver.AnyVersion})
}

func (x *env) drop(e driver.Engine, name string) {
	x.Helper()
	if v := x.write(e, driver.Write{Name: name, Delete: true, If: driver.AnyVersion}); v.Version != 0 {
		x.Errorf("a deletion answered %+v", v)
	}
}

// stores ends the case unless that is what is stored.
func (x *env) stores(e driver.Engine, name, text string, version int64) {
	x.Helper()
	if v := x.readValue(e, name); string(v.Data) != text || v.Version != version {
		x.Fatalf("stored is %q, version %d: want %q, version %d", v.Data, v.Version, text, version)
	}
}

// stale ends the case unless the write is refused with what is stored.
func (x *env) stale(e driver.Engine, w driver.Write, stored driver.Value, why string) {
	x.Helper()
	v, err := x.tryWrite(e, w)
	x.wantKind(err, "write with %s", []any{why}, driver.Stale)
	if v.Version != stored.Version || !bytes.Equal(v.Data, stored.Data) || v.Fence != stored.Fence {
		x.Errorf("a write with %s answered %+v, and stored is %+v", why, v, stored)
	}
	x.stores(e, w.Name, string(stored.Data), stored.Version)
}

func testValueRead(x *env) {
	a, b := x.open(), x.open()
	name := x.name()
	if v := x.readValue(a, name); v.Version != 0 || v.Data != nil || v.Fence != 0 || v.TTL != 0 || v.Now.IsZero() {
		x.Errorf("nothing is stored, and read was %+v", v)
	}
	put := x.put(a, name, "x")
	if v := x.readValue(b, name); v.Version != put.Version || v.Version <= 0 || string(v.Data) != "x" {
		x.Errorf("read was %+v, after a write that answered %+v", v, put)
	}
}

func testValueWrite(x *env) {
	e := x.open()
	name := x.name()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, data := range [][]byte{nil, {0}, all, []byte("1 2 3"), bytes.Repeat(all, driver.MaxValue/len(all))} {
		v := x.write(e, driver.Write{Name: name, Data: data, If: driver.AnyVersion})
		if !bytes.Equal(v.Data, data) {
			x.Errorf("a write of %d bytes answered %d others", len(data), len(v.Data))
		}
		if v.Version == 0 {
			x.Errorf("%d bytes were stored as version 0", len(data))
		}
		want := string(data)
		if len(data) > 0 {
			data[0]++ // it is the caller's again
		}
		x.stores(e, name, want, v.Version)
	}
}

func testValueVersion(x *env) {
	a, b := x.open(), x.open()
	name := x.name()
	last := int64(0)
	grows := func(v driver.Value, when string) {
		x.Helper()
		if v.Version <= last {
			x.Errorf("version %d after %d, %s", v.Version, last, when)
		}
		last = v.Version
	}
	for range 20 {
		grows(x.put(a, name, "a"), "of a write")
		grows(x.put(b, name, "b"), "of another's write")
	}
	x.drop(a, name)
	grows(x.put(b, name, "a"), "after a deletion")
	grows(x.write(a, driver.Write{Name: name, If: last, TTL: x.TTL}), "of a write that expires")
	x.gone(b, name)
	grows(x.put(b, name, "b"), "after expiry")
}

// gone waits until nothing is stored under name.
func (x *env) gone(e driver.Engine, name string) {
	x.Helper()
	x.pass(x.TTL)
	for end := x.clock.Now().Add(x.Slack); x.readValue(e, name).Version != 0; x.pass(x.Pause) {
		if x.clock.Now() > end {
			x.Fatalf("a value is still there %v after its TTL", x.Slack)
		}
	}
}

func testValueIf(x *env) {
	e := x.open()
	name := x.name()
	x.stale(e, driver.Write{Name: name, Data: []byte("x"), If: 7}, driver.Value{}, "a version of what is not stored")
	first := x.write(e, driver.Write{Name: name, Data: []byte("first"), If: 0})
	x.stale(e, driver.Write{Name: name, If: 0}, first, "version 0 of what is stored")
	second := x.write(e, driver.Write{Name: name, Data: []byte("second"), If: first.Version})
	x.stale(e, driver.Write{Name: name, If: first.Version}, second, "an old version")
	x.stale(e, driver.Write{Name: name, If: first.Version, Delete: true}, second, "an old version, to delete")
	x.write(e, driver.Write{Name: name, If: second.Version, Delete: true})
	x.stale(e, driver.Write{Name: name, If: second.Version}, driver.Value{}, "the version of what was deleted")
}

func testValueRace(x *env) {
	const users = 8
	var engines []driver.Engine
	for range users {
		engines = append(engines, x.open())
	}
	name := x.name()
	last := x.put(engines[0], name, "").Version
	for range max(1, x.Rounds/20) {
		var all sync.WaitGroup
		var won atomic.Int64
		var version atomic.Int64
		for _, e := range engines {
			all.Go(func() {
				v, err := x.tryWrite(e, driver.Write{Name: name, If: last})
				if err == nil {
					won.Add(1)
					version.Store(v.Version)
				}
			})
		}
		all.Wait()
		if won.Load() != 1 {
			x.Fatalf("%d of %d writes with the same If happened", won.Load(), users)
		}
		last = version.Load()
	}
}

func testValueFence(x *env) {
	e := x.open()
	name := x.name()
	write := func(text string, fence int64) driver.Write {
		return driver.Write{Name: name, Data: []byte(text), Fence: fence, If: driver.AnyVersion}
	}
	const high = 1<<53 - 10 // numbers of that size break in floating point first
	x.write(e, write("a", high))
	if v := x.write(e, write("b", high+1)); v.Fence != high+1 {
		x.Errorf("fence is %d after a write with %d", v.Fence, high+1)
	}
	same := x.write(e, write("c", high+1))
	x.stale(e, write("d", high), same, "a lower fence")
	x.stale(e, driver.Write{Name: name, Delete: true, If: driver.AnyVersion, Fence: 9}, same, "a lower fence, to delete")
	if v := x.write(e, write("e", 0)); v.Fence != high+1 {
		x.Errorf("fence is %d after a write without one: want %d", v.Fence, high+1)
	}
}

func testValueDelete(x *env) {
	a, b := x.open(), x.open()
	name := x.name()
	x.drop(a, name)
	x.write(a, driver.Write{Name: name, Data: []byte("x"), Fence: 5, If: driver.AnyVersion})
	x.drop(b, name)
	if v := x.readValue(a, name); v.Version != 0 || v.Data != nil || v.Fence != 0 {
		x.Errorf("after a deletion there is %+v", v)
	}
	x.write(a, driver.Write{Name: name, Fence: 4, If: 0})
}

func testValueTTL(x *env) {
	a, b := x.open(), x.open()
	name := x.name()
	short := driver.Write{Name: name, TTL: x.TTL, If: driver.AnyVersion}
	for attempt := 0; ; attempt++ {
		sent := x.clock.Now()
		x.write(a, short)
		x.pass(x.TTL * 2 / 3)
		v := x.readValue(b, name)
		if x.clock.Now().Sub(sent) < x.TTL {
			if v.Version == 0 || v.TTL <= 0 || v.TTL > x.TTL {
				x.Fatalf("before its end %+v is stored", v)
			}
			break
		}
		if attempt == 20 {
			x.Fatalf("this machine is too slow for a TTL of %v", x.TTL)
		}
	}
	sent := x.clock.Now()
	x.write(b, short)
	x.pass(x.TTL * 2 / 3)
	if v := x.readValue(a, name); v.Version == 0 && x.clock.Now().Sub(sent) < x.TTL {
		x.Errorf("a write did not count the TTL anew")
	}
	x.gone(a, name)
	x.write(a, short)
	x.put(b, name, "for ever")
	x.pass(x.TTL * 3 / 2)
	if v := x.readValue(a, name); v.Version == 0 || v.TTL != 0 {
		x.Errorf("a write without TTL did not end that of the write before: %+v", v)
	}
}

// awaiting is an AwaitValue under way.
type awaiting struct {
	x      *env
	answer chan error
	value  driver.Value
	cancel context.CancelFunc
}

func (x *env) await(e driver.Engine, name string, version int64) *awaiting {
	ctx, cancel := context.WithCancel(context.Background())
	w := &awaiting{x: x, answer: make(chan error, 1), cancel: cancel}
	x.Cleanup(cancel)
	go func() {
		var err error
		w.value, err = e.(driver.Values).AwaitValue(ctx, name, version)
		w.answer <- err
	}()
	return w
}

// ended waits for the end of the call.
func (w *awaiting) ended() error {
	w.x.Helper()
	select {
	case err := <-w.answer:
		return err
	case <-time.After(w.x.Slack):
		w.x.Fatalf("AwaitValue did not return within %v", w.x.Slack)
		return nil
	}
}

// sees ends the case unless the call returns another version than the one given.
func (w *awaiting) sees(not int64, what string) driver.Value {
	w.x.Helper()
	if err := w.ended(); err != nil {
		w.x.Fatalf("AwaitValue of %s: %v", what, err)
	}
	if w.value.Version == not {
		w.x.Fatalf("AwaitValue returned before %s", what)
	}
	return w.value
}

func testValueAwait(x *env) {
	a, b := x.open(), x.open()
	name := x.name()
	w := x.await(a, name, 0)
	time.Sleep(x.Pause)
	first := x.put(b, name, "x").Version
	w.sees(0, "the first write")
	x.await(a, name, 0).sees(0, "a write before the call")

	var many []*awaiting
	for range 10 {
		many = append(many, x.await(a, name, first), x.await(b, name, first))
	}
	time.Sleep(x.Pause)
	second := x.put(a, name, "y").Version
	for _, w := range many {
		if v := w.sees(first, "a write"); v.Version != second || string(v.Data) != "y" {
			x.Errorf("AwaitValue returned %+v: want version %d", v, second)
		}
	}
	w = x.await(a, name, second)
	time.Sleep(x.Pause)
	x.drop(b, name)
	if v := w.sees(second, "a deletion"); v.Version != 0 {
		x.Errorf("after a deletion AwaitValue returned %+v", v)
	}
	third := x.write(b, driver.Write{Name: name, TTL: x.TTL, If: 0}).Version
	w = x.await(a, name, third)
	x.pass(x.TTL)
	if v := w.sees(third, "expiry"); v.Version != 0 {
		x.Errorf("after expiry AwaitValue returned %+v", v)
	}
}

func testValueCancel(x *env) {
	e := x.open()
	name := x.name()
	version := x.put(e, name, "x").Version
	w := x.await(e, name, version)
	time.Sleep(x.Pause)
	w.cancel()
	err := w.ended()
	d := x.wantKind(err, "a cancelled AwaitValue", nil, driver.Unavailable)
	if !errors.Is(err, context.Canceled) || d.Outcome != driver.NotApplied {
		x.Errorf("a cancelled AwaitValue ended with %v, %v", err, d.Outcome)
	}
	w = x.await(e, name, version)
	w.cancel()
	if w.ended() == nil {
		x.Errorf("AwaitValue saw a change where there is none")
	}
}

func testValueNames(x *env) {
	a, b := x.open(), x.open()
	one := x.name()
	names := []string{one, one + "\u00e9", one + "e\u0301", one + " ", one + ":v", "v:" + one, one + "/v", "{" + one + "}", one + "*"}
	held := x.take(a, x.exclusive(one))
	versions := map[string]int64{}
	for _, name := range names {
		versions[name] = x.put(a, name, "value of "+name).Version
	}
	for _, name := range names {
		x.stores(b, name, "value of "+name, versions[name])
	}
	held.alive()
	held.release()
	x.stores(b, one, "value of "+one, versions[one])
	x.free(b, one)
	x.drop(a, one)
	x.free(b, one)
	for _, name := range names[1:] {
		x.stores(b, name, "value of "+name, versions[name])
	}
}

func testValueClose(x *env) {
	a, b := x.open(), x.open()
	name := x.name()
	version := x.put(b, name, "x").Version
	w := x.await(a, name, version)
	time.Sleep(x.Pause)
	if err := a.Close(); err != nil {
		x.Fatalf("Close: %v", err)
	}
	x.wantKind(w.ended(), "AwaitValue when its engine was closed", nil, driver.Closed)
	ctx, cancel := x.patience()
	defer cancel()
	_, err := a.(driver.Values).ReadValue(ctx, name)
	x.wantKind(err, "ReadValue after Close", nil, driver.Closed)
	_, err = a.(driver.Values).AwaitValue(ctx, name, version)
	x.wantKind(err, "AwaitValue after Close", nil, driver.Closed)
	_, err = x.tryWrite(a, driver.Write{Name: name, If: driver.AnyVersion})
	x.wantKind(err, "WriteValue after Close", nil, driver.Closed)
	x.stores(b, name, "x", version)
}
