package redislock

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/redis/go-redis/v9"
)

var (
	errNotMaster = errors.New("the server is a replica: the master has changed, or the address is a replica's")
	errCutOff    = errors.New("too few replicas acknowledge, so this master grants nothing: another one may have taken over")
	errGarbled   = errors.New("the server's reply cannot be read: does something else answer there?")
	errQueueFull = errors.New("the queue of this name is full")
)

// constantsError says that clients of one deployment were told different constants.
type constantsError struct{ ours, theirs string }

func (e *constantsError) Error() string {
	return fmt.Sprintf("this client has the failover settings %q (MaxTTL in ms, replicas that must acknowledge, MaxLag in s), "+
		"the deployment's are %q: make Config.MaxTTL, DataNodes, MaxLag and Safety the same everywhere", e.ours, e.theirs)
}

// classify turns the error of a whole call into the driver's.
func (e *Engine) classify(err error) *driver.Error {
	fail := func(o driver.Outcome, err error) *driver.Error {
		return &driver.Error{Kind: driver.Unavailable, Outcome: o, Err: err}
	}
	var constants *constantsError
	var dial *net.OpError
	var reply redis.Error
	switch {
	case errors.As(err, &constants):
		return driver.Fail(driver.Invalid, err)
	case byReplica(err):
		return fail(driver.NotApplied, e.advised(fmt.Errorf("%w (%w)", errNotMaster, err)))
	case errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrPoolExhausted):
		return fail(driver.NotApplied, err)
	case errors.Is(err, redis.ErrClosed):
		return fail(driver.NotApplied, fmt.Errorf("the Redis client was closed: %w", err))
	case errors.As(err, &reply):
		// An error in the middle of the script names it: part of the call was carried out.
		outcome := driver.NotApplied
		if inScript(err) {
			outcome = driver.Unknown
		}
		return fail(outcome, e.advised(err))
	case errors.As(err, &dial) && dial.Op == "dial", isHandshake(err):
		return fail(driver.NotApplied, e.advised(err))
	}
	return fail(driver.Unknown, e.advised(err))
}

// refused turns the server's error for one request of a call into the driver's. What the
// request asked for was not done.
func (e *Engine) refused(text string) *driver.Error {
	if strings.HasPrefix(text, "WRONGTYPE") {
		return driver.Failf(driver.Invalid, "the key is in use for something other than a lock: choose another name or prefix (%s)", text)
	}
	return driver.Fail(driver.Unavailable, e.advised(errors.New(text)))
}

// isPermission reports whether a server's message is about what a user may not do. In scripts,
// servers leave out the code NOPERM, and say it in words of their own.
func isPermission(text string) bool {
	for _, part := range []string{"NOPERM", "no permissions", "executing the script can't"} {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}

// isKeyBarred reports whether a call was refused, before anything was carried out, because the
// user may not use one of its keys.
func isKeyBarred(err error) bool {
	text := err.Error()
	return strings.HasPrefix(text, "NOPERM") && strings.Contains(text, " key") && !inScript(err)
}

// byReplica reports whether a whole call was refused by a replica, and nothing done.
func byReplica(err error) bool {
	return redis.IsReadOnlyError(err) && !inScript(err)
}

// inScript reports whether a server's error came up in the middle of a script.
func inScript(err error) bool {
	text := err.Error()
	return strings.Contains(text, "user_script") || strings.Contains(text, "script: ")
}

func isNoScript(err error) bool { return err != nil && strings.HasPrefix(err.Error(), "NOSCRIPT") }

func formatInt(n int64) string { return strconv.FormatInt(n, 10) }

// ACL returns the ACL rule that gives user what this engine needs and no more. The rule has
// no password: add >password. Servers refuse rules with names that they do not know, so it
// has none that came after the oldest of them: CLIENT SETINFO, which clients do without. It
// takes other channels away: Redis 6.2 gives new users all of them, and no pattern beside those.
func (e *Engine) ACL(user string) string {
	keys := "~" + companions + "*"
	if e.cfg.RawKeys {
		keys = "~*"
	} else {
		// No space may stand in a pattern, but a sign for any one character may.
		keys += " ~" + strings.ReplaceAll(glob(e.cfg.Prefix), " ", "?") + "*"
	}
	commands := "+eval +evalsha +get +set +mget +del +exists +pexpire +pttl +expire +time +type +scan +ping +hello +auth " +
		"+client|setname +hget +hset +hdel +hmget +hexists +hincrby +zadd +zrem +zcard +zrange +zrangebyscore " +
		"+lpush +ltrim +publish +subscribe +unsubscribe +pubsub|numsub"
	if e.quorum {
		commands = "+eval +evalsha +get +set +mget +del +exists +pexpire +pttl +expire +time +info +type +scan +ping +hello +auth " +
			"+client|setname +zadd +zrem +zpopmin +zcard +lpush +ltrim +publish +subscribe +unsubscribe"
	}
	if c, ok := e.client.(*redis.Client); ok && c.Options().DB > 0 {
		commands += " +select"
	}
	if e.cfg.Safety != SingleProcess {
		commands += " +info"
	}
	if e.cfg.Safety == PartitionSafe {
		commands += " +wait"
	}
	if e.cluster != nil {
		commands += " +cluster|slots +cluster|shards +command"
	}
	if e.publishes() == "SPUBLISH" {
		commands += " +spublish +ssubscribe +sunsubscribe +pubsub|shardnumsub"
	}
	return "ACL SETUSER " + user + " on " + keys + " resetchannels &" + companions + "* -@all " + commands
}
