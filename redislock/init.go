package redislock

import (
	"context"
	"fmt"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/redis/go-redis/v9"
)

// Init implements driver.Initializer: it writes the epoch of a deployment that has none, so
// that the first lock need not wait as after a failover. It refuses, and writes nothing, where
// there is an epoch, where locks were taken before, and on a master that was a replica once.
// An empty server that lost its data looks like a new one: only the operator knows.
//
// In a Cluster it writes one epoch for each slot, and passes over slots that have one already
// that lets everything pass. One that is refused ends it; slots before it are done then.
func (e *Engine) Init(ctx context.Context) error {
	if err := e.enter(ctx); err != nil {
		return err
	}
	defer e.leave()
	if e.constants == "" {
		return driver.Failf(driver.Invalid, "Safety is SingleProcess, where nothing waits: there is nothing to initialize")
	}
	if e.cluster == nil {
		reply, err := initScript().Run(ctx, e.only.node, []string{e.single.epoch, e.single.fence}, e.constants).StringSlice()
		if err != nil {
			return e.classify(err)
		}
		return initialized(reply, &e.single, false)
	}
	return e.initSlots(ctx)
}

// initBatch is how many slots are initialized in one exchange with a node.
const initBatch = 256

func (e *Engine) initSlots(ctx context.Context) error {
	if err := e.await(ctx, e.remap); err != nil {
		return e.classify(err)
	}
	byNode := make(map[*redis.Client][]*layout)
	for slot := range slots {
		c, err := e.nodeOf(slot)
		if err == nil && !c.greeted.Load() {
			err = e.await(ctx, c.greet)
		}
		if err != nil {
			return e.classify(err)
		}
		if c.slotted {
			byNode[c.node] = append(byNode[c.node], e.layoutOf(slot))
		} else {
			byNode[c.node] = []*layout{&e.single}
		}
	}
	for node, all := range byNode {
		// The first call makes the script known to the node.
		for n := 1; len(all) > 0; n = min(initBatch, len(all)) {
			if err := e.initSome(ctx, node, all[:n]); err != nil {
				return err
			}
			all = all[n:]
		}
	}
	return nil
}

func (e *Engine) initSome(ctx context.Context, node *redis.Client, some []*layout) error {
	calls := make([]*redis.Cmd, len(some))
	if len(some) == 1 {
		calls[0] = initScript().Run(ctx, node, []string{some[0].epoch, some[0].fence}, e.constants)
	} else {
		pipe := node.Pipeline()
		for i, l := range some {
			calls[i] = initScript().EvalSha(ctx, pipe, []string{l.epoch, l.fence}, e.constants)
		}
		_, _ = pipe.Exec(ctx) // each call has its own error
	}
	for i, c := range calls {
		reply, err := c.StringSlice()
		if err != nil {
			return e.classify(err)
		}
		if err := initialized(reply, some[i], true); err != nil {
			return err
		}
	}
	return nil
}

// initialized reads the reply of lua/init.lua.
func initialized(reply []string, at *layout, repeated bool) error {
	if len(reply) != 2 {
		return driver.Fail(driver.Unavailable, errGarbled)
	}
	word, detail := reply[0], reply[1]
	refuse := func(format string, args ...any) error {
		return driver.Failf(driver.Invalid, "nothing was written: "+format, args...)
	}
	switch word {
	case "done":
		return nil
	case "open":
		if repeated {
			return nil
		}
		return refuse("%s is there, and its grace is over: locks are granted already", at.epoch)
	case "epoch":
		return refuse("%s is there, so clients have used the server before: it is %.100q", at.epoch, detail)
	case "fence":
		return refuse("%s is there, so locks were taken before: wait for the grace, which lasts as long as they may live", at.fence)
	case "promoted":
		return refuse("the server was a replica and took over: locks of its predecessor may be alive, wait for the grace")
	case "master":
		return driver.Fail(driver.Unavailable, fmt.Errorf("nothing was written: %w", errNotMaster))
	}
	return driver.Fail(driver.Unavailable, errGarbled)
}
