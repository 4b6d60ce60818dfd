package redislock

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/redis/go-redis/v9"
)

// needs lists every command that the scripts carry out, in an order in which none fails on
// keys that do not exist yet, with key as that of a lock. tag is the hash tag of its slot, or
// empty.
func (e *Engine) needs(key, tag string) [][]string {
	companion := func(i int) string { return companionKinds[i] + tag + key }
	queue, seen, book, ends := companion(0), companion(1), companion(2), companion(3)
	fence, audit := companions+"fence.doctor"+tag, companions+"audit.doctor"+tag
	all := [][]string{
		{"TIME"},
		{"SET", fence, "1", "PX", "1000", "GET"}, {"GET", fence},
		{"SET", key, "holdfast doctor", "NX", "PX", "1000"}, {"GET", key}, {"MGET", key}, {"TYPE", key},
		{"EXISTS", key}, {"PTTL", key}, {"PEXPIRE", key, "1000"},
		{"ZADD", queue, "NX", "1", "x"}, {"ZCARD", queue}, {"ZRANGE", queue, "0", "0"},
		{"ZADD", ends, "1", "x"}, {"ZRANGEBYSCORE", ends, "1", "2"}, {"ZREM", ends, "x"},
		{"HSET", seen, "x", "1"}, {"HDEL", seen, "x"},
		{"HSET", book, "x", "1"}, {"HGET", book, "x"}, {"HMGET", book, "x"}, {"HEXISTS", book, "x"}, {"HINCRBY", book, "x", "1"},
		{"LPUSH", audit, "x"}, {"LTRIM", audit, "0", "0"}, {"EXPIRE", audit, "1"},
		{e.publishes(), companions + "in:" + tag + "doctor", ""}, {"PUBSUB", "NUMSUB", companions + "in:" + tag + "doctor"},
	}
	if e.publishes() == "SPUBLISH" {
		all = append(all, []string{"PUBSUB", "SHARDNUMSUB", companions + "in:" + tag + "doctor"})
	}
	if e.constants != "" {
		poke := companions + "poke" + tag
		all = append(all, []string{"INFO", "replication"}, []string{"SET", poke, "1", "PX", "1"}, []string{"DEL", poke})
	}
	return append(all, []string{"DEL", key, queue, seen, book, ends, fence, audit})
}

// direct lists the commands that are sent by themselves.
func (e *Engine) direct(tag string) [][]string {
	subscribe := "SUBSCRIBE"
	if e.publishes() == "SPUBLISH" {
		subscribe = "SSUBSCRIBE"
	}
	all := [][]string{
		{"EVAL", "return 1", "0"}, {"EVALSHA", inspectScript().Hash(), "0"}, {"PING"}, {"SCAN", "0"},
		{subscribe, companions + "in:" + tag + "doctor"},
	}
	if e.cfg.Safety == PartitionSafe {
		all = append(all, []string{"WAIT", "0", "0"})
	}
	if e.cluster != nil {
		all = append(all, []string{"CLUSTER", "SLOTS"})
	}
	return all
}

// refusedCommand is a command that the server does not carry out for this user.
type refusedCommand struct {
	name string
	why  string
	acl  bool // for want of permission
}

// trial finds out what the engine's user may not do. Commands are tried on keys that are gone
// afterwards, and where the server tells more (Redis 7.0, users who may ask) it is asked.
func (e *Engine) trial(ctx context.Context, node *redis.Client, tag string) ([]refusedCommand, error) {
	key := e.cfg.Prefix + tag + "doctor-" + e.id
	found := make(map[string]refusedCommand)
	var order []string
	note := func(args []string, why string) {
		name := strings.ToLower(args[0])
		if args[0] == "CLUSTER" || args[0] == "PUBSUB" {
			name += "|" + strings.ToLower(args[1])
		}
		if _, known := found[name]; !known && why != "" {
			order = append(order, name)
			found[name] = refusedCommand{name: name, why: why, acl: isPermission(why)}
		}
	}
	needs := e.needs(key, tag)
	var args []any
	for _, n := range needs {
		args = append(args, strconv.Itoa(len(n)))
		for _, a := range n {
			args = append(args, a)
		}
	}
	replies, err := trialScript().Eval(ctx, node, nil, args...).StringSlice()
	var refused redis.Error
	switch {
	case errors.As(err, &refused):
		note([]string{"EVAL"}, err.Error())
	case err != nil:
		return nil, err
	}
	for i, why := range replies {
		note(needs[i], why)
	}
	for _, d := range e.direct(tag) {
		if err := e.tryDirect(ctx, node, d); err != nil {
			note(d, err.Error())
		}
	}
	for _, n := range append(needs, e.direct(tag)...) {
		note(n, dryRun(ctx, node, n))
	}
	all := make([]refusedCommand, len(order))
	for i, name := range order {
		all[i] = found[name]
	}
	return all, nil
}

// tryDirect sends one of the commands of direct and returns the server's refusal.
func (e *Engine) tryDirect(ctx context.Context, node *redis.Client, args []string) error {
	var err error
	if sharded := args[0] == "SSUBSCRIBE"; sharded || args[0] == "SUBSCRIBE" {
		var ps *redis.PubSub
		if sharded {
			ps = node.SSubscribe(ctx, args[1])
		} else {
			ps = node.Subscribe(ctx, args[1])
		}
		_, err = ps.ReceiveTimeout(ctx, e.cfg.Timeout)
		_ = ps.Close()
	} else {
		sent := make([]any, len(args))
		for i, a := range args {
			sent[i] = a
		}
		err = node.Do(ctx, sent...).Err()
	}
	var refused redis.Error
	if !errors.As(err, &refused) || errors.Is(err, redis.Nil) || isNoScript(err) {
		return nil
	}
	return err
}

// dryRun asks the server whether the user may carry out a command. It returns why not, and
// nothing where the server cannot be asked.
func dryRun(ctx context.Context, node *redis.Client, args []string) string {
	user := node.Options().Username
	if user == "" {
		user = "default"
	}
	sent := []any{"ACL", "DRYRUN", user}
	for _, a := range args {
		sent = append(sent, a)
	}
	said, err := node.Do(ctx, sent...).Text()
	if err != nil || said == "OK" || !isPermission(said) {
		return ""
	}
	return said
}

// permissions reports what the engine's user may not do, and whether the server takes writes.
func (x *exam) permissions(ctx context.Context, node *redis.Client) error {
	tag, ok := "", true
	if x.e.cluster != nil {
		if tag, ok = x.e.tagOn(ctx, node); !ok {
			x.find(driver.LevelNote, "permissions", "", "the node serves no slots, so nothing was tried on it")
			return nil
		}
	}
	began := time.Now()
	refused, err := x.e.trial(ctx, node, tag)
	if err != nil {
		return err
	}
	var forbidden, failed []string
	why := ""
	for _, r := range refused {
		if r.acl {
			forbidden = append(forbidden, r.name)
			why = r.why
		} else {
			failed = append(failed, r.name+": "+r.why)
		}
	}
	if len(forbidden) > 0 {
		x.find(driver.LevelProblem, "permissions", x.e.ACL("<user>"), "the user may not carry out %s (%s)", strings.Join(forbidden, ", "), why)
	}
	if len(failed) > 0 {
		x.find(driver.LevelProblem, "commands", "see what the server says", "the server does not carry out %s", strings.Join(failed, "; "))
	}
	if len(refused) == 0 {
		x.find(driver.LevelOK, "permissions", "", "the user may carry out all commands that are needed, tried in %v", time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// tagOn returns the hash tag of a slot that node serves.
func (e *Engine) tagOn(ctx context.Context, node *redis.Client) (string, bool) {
	for _, tag := range tags() {
		if at, err := e.cluster.MasterForKey(ctx, tag); err == nil && at == node {
			return tag, true
		}
	}
	return "", false
}
