package redislock

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// ruleNames is what lua/count.lua calls the rules.
var ruleNames = map[driver.Rule]string{
	driver.Total: "total", driver.Raise: "raise", driver.Window: "window", driver.FixedWindow: "fixed",
	driver.SlidingWindow: "sliding", driver.Pace: "pace", driver.Forget: "forget",
}

// Count implements driver.Counters: one call of lua/count.lua, in a Cluster one for each slot, all at once.
// A total is proven in the mastership in which it was raised: after a restart or a failover,
// which may have lost what was counted last, it is not.
func (e *Engine) Count(ctx context.Context, steps []driver.Count) []driver.Counted {
	answers := make([]driver.Counted, len(steps))
	fail := func(which []int, err error) {
		for _, i := range which {
			answers[i] = driver.Counted{Err: err}
		}
	}
	all := make([]int, len(steps))
	for i := range all {
		all[i] = i
	}
	if err := e.enter(ctx); err != nil {
		fail(all, err)
		return answers
	}
	defer e.leave()
	keys, bySlot := make([]string, len(steps)), map[int][]int{}
	for i, step := range steps {
		key, slot, err := e.companionKey(counterKind, step.Name)
		if err != nil {
			fail(all[i:i+1], err)
			continue
		}
		keys[i] = key
		bySlot[slot] = append(bySlot[slot], i)
	}
	var calls sync.WaitGroup // at once, so that nobody waits for the node of another
	for slot, which := range bySlot {
		call := func() {
			if err := e.countAt(ctx, slot, which, keys, steps, answers); err != nil {
				fail(which, err)
			}
		}
		if len(bySlot) == 1 {
			call()
		} else {
			calls.Go(call)
		}
	}
	calls.Wait()
	return answers
}

// countAt carries out the steps that are in one slot.
func (e *Engine) countAt(ctx context.Context, slot int, which []int, allKeys []string, steps []driver.Count, answers []driver.Counted) error {
	keys, args := make([]string, 0, len(which)), make([]any, 4, 4+6*len(which)) // of which the gate looks at the last
	args[0], args[1], args[2], args[3] = "", "", "", ""
	for _, i := range which {
		s := &steps[i]
		keys = append(keys, allKeys[i])
		args = append(args, ruleNames[s.Rule], s.N, s.Limit, s.Burst, s.Window.Milliseconds(), max(1, s.Times))
	}
	var reply []string
	err := e.await(ctx, func() (err error) {
		reply, err = e.runAt(e.life, countScript(), slot, keys, args...)
		return err
	})
	switch {
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return &driver.Error{Kind: driver.Unavailable, Err: err}
	case err != nil:
		return e.valueError(err)
	case len(reply) == 1 && shut(reply[0]) != nil:
		return shut(reply[0])
	case len(reply) != len(which):
		return e.classify(errGarbled)
	}
	for k, i := range which {
		answers[i] = e.parseCounted(&steps[i], reply[k])
	}
	return nil
}

// parseCounted reads 'total unproven passed remaining retry reset', or '!' and an error.
func (e *Engine) parseCounted(step *driver.Count, word string) driver.Counted {
	if text, failed := strings.CutPrefix(word, "!"); failed {
		code, _, _ := strings.Cut(text, " ")
		if code == "WRONGTYPE" || code != strings.ToUpper(code) { // a text of the script's own
			return driver.Counted{Err: driver.Failf(driver.Invalid, "%s", text)}
		}
		return driver.Counted{Err: e.refused(text)}
	}
	var n [6]int64
	fields := strings.Fields(word)
	if len(fields) != len(n) {
		return driver.Counted{Err: e.classify(errGarbled)}
	}
	for i, field := range fields {
		var err error
		if n[i], err = strconv.ParseInt(field, 10, 64); err != nil {
			return driver.Counted{Err: e.classify(errGarbled)}
		}
	}
	return driver.Counted{
		Total: n[0], Unproven: n[1] == 1, Allowed: n[2] > 0 && n[2] >= step.Times, Passed: n[2], Remaining: n[3],
		RetryAfter: time.Duration(n[4]) * time.Microsecond, ResetAfter: time.Duration(n[5]) * time.Microsecond,
	}
}
