package drivertest

import (
	"context"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

var closingCases = []testCase{
	{
		name:     "close",
		sentence: "answer Closed to every call after Close, and end the calls that wait",
		run:      testClose,
	}, {
		name:     "close-leak",
		sentence: "leave no goroutine behind after Close",
		run:      testCloseLeak,
	},
}

func testClose(x *env) {
	a, b := x.open(), x.open()
	name := x.name()
	holder := x.take(b, x.exclusive(name))
	own := x.take(a, x.exclusive(x.name()))
	var waiting []*pending
	for _, mode := range x.modes() {
		req := x.request(name, mode)
		req.TTL = x.TTL // for engines that leave what waits to die
		waiting = append(waiting, x.queue(a, req))
	}
	if err := a.Close(); err != nil {
		x.Fatalf("Close: %v", err)
	}
	for _, p := range waiting {
		x.wantKind(p.ended(), "%v request that waited when its engine was closed", []any{p.req.Mode}, driver.Closed)
	}
	x.fails(a, x.exclusive(x.name()), driver.Closed)
	x.fails(a, x.exclusive(name), driver.Closed)
	x.wantKind(own.tryRelease(), "release after Close", nil, driver.Closed)
	for _, err := range x.renewAll(a, own.claim(), own.claim()) {
		x.wantKind(err, "renewal after Close", nil, driver.Closed)
	}
	if ins, ok := a.(driver.Inspector); ok {
		ctx, cancel := x.patience()
		defer cancel()
		_, err := ins.Inspect(ctx, name)
		x.wantKind(err, "Inspect after Close", nil, driver.Closed)
		_, err = ins.List(ctx, name, 1)
		x.wantKind(err, "List after Close", nil, driver.Closed)
		_, err = ins.Break(ctx, driver.BreakRequest{Name: name})
		x.wantKind(err, "Break after Close", nil, driver.Closed)
	}

	// The others' shares are not concerned, and who waited is not in their way for long.
	holder.alive()
	x.taken(b, name)
	holder.release()
	x.freed(b, x.exclusive(name), anyTime, x.after(x.TTL))
}

func testCloseLeak(x *env) {
	name := x.name()
	holder := x.take(x.open(), x.exclusive(name))

	// Goroutines inherit the labels of who starts them, so that those of this engine can be
	// told from all others of the process.
	label := "engine of " + name
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("drivertest", label)))
	defer pprof.SetGoroutineLabels(context.Background())
	e := x.store.Open()
	held := x.take(e, x.exclusive(x.name()))
	held.alive()
	x.refused(e, x.exclusive(name))
	waiting := x.queue(e, x.exclusive(name))
	x.queue(e, x.exclusive(name)).canceled()
	if err := e.Close(); err != nil {
		x.Fatalf("Close: %v", err)
	}
	waiting.ended()
	pprof.SetGoroutineLabels(context.Background())

	var left string
	for deadline := time.Now().Add(x.Slack); ; time.Sleep(x.Slack / 100) {
		if left = goroutines(label); left == "" {
			break
		}
		if time.Now().After(deadline) {
			x.Fatalf("goroutines of the engine, %v after Close:\n%s", x.Slack, left)
		}
	}
	holder.alive()
}

// goroutines returns the stacks of the goroutines with that label.
func goroutines(label string) string {
	var all strings.Builder
	pprof.Lookup("goroutine").WriteTo(&all, 1) // a Builder does not fail
	var left []string
	for stack := range strings.SplitSeq(all.String(), "\n\n") {
		if strings.Contains(stack, label) {
			left = append(left, stack)
		}
	}
	return strings.Join(left, "\n\n")
}
