package fence

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// RedisEval runs a Lua script with EVAL, or EVALSHA and EVAL behind it, and returns its reply,
// a reply that is an error as an error with its text. With go-redis that is
//
//	func(ctx context.Context, script string, keys []string, args ...any) (any, error) {
//		return redis.NewScript(script).Run(ctx, client, keys, args...).Result()
//	}
type RedisEval func(ctx context.Context, script string, keys []string, args ...any) (any, error)

// RedisConfig configures a [Redis] guard. The zero value is ready for use.
type RedisConfig struct {
	// Prefix is what the keys of fences begin with. It has no braces. Default
	// "holdfast.fenced:".
	Prefix string

	// Keep is for how long a fence is remembered after its last use. Default 7 days, at least
	// one minute, in whole milliseconds.
	//
	// What was forgotten is refused by writes, so it costs a holder that lets so much time
	// pass between Open and a write its lease, and nobody an update. But a holder that was
	// paused for longer before its Open, when nobody has used the key since, is let in: it reads
	// and writes in due form, after later holders.
	Keep time.Duration

	_ struct{}
}

// DefaultKeep is the default of RedisConfig.Keep.
const DefaultKeep = 7 * 24 * time.Hour

func (c RedisConfig) withDefaults() RedisConfig {
	if c.Prefix == "" {
		c.Prefix = "holdfast.fenced:"
	}
	if c.Keep == 0 {
		c.Keep = DefaultKeep
	}
	return c
}

func (c RedisConfig) validate() (errs violations) {
	errs.check(len(c.Prefix) > 128 || strings.ContainsAny(c.Prefix, "{}"),
		"Prefix is %.140q: it must have up to 128 bytes and no braces", c.Prefix)
	errs.check(c.Keep < time.Minute || c.Keep%time.Millisecond != 0,
		"Keep is %v: it must be whole milliseconds, at least 1m", c.Keep)
	return errs
}

// Redis guards keys of a Redis server or Cluster. Beside each key, in the same slot, stands
// another with the largest fence that was shown, one for each name of a lock. Keys with the same
// hash tag share it. Checks and writes are one script, so nothing comes between them.
//
// Keys keep their names and hash tags. Only a key with a closing brace and no hash tag cannot
// be guarded: no other key would surely be in its slot.
//
// It is safe for concurrent use. A failover that loses the last writes loses the last fences
// with them: who had registered those is refused then, and has to start over. A script whose reply
// is lost may have been carried out, or be carried out later, and clients may send it again:
// scripts of [Redis.Eval] have to bear that.
type Redis struct {
	eval RedisEval
	cfg  RedisConfig
}

//go:embed lua/open.lua
var openScript string

//go:embed lua/check.lua
var checkPrelude string

//go:embed lua/set.lua
var setScript string

// NewRedis returns a guard that works through eval. It sends nothing. What is wrong with its
// arguments is reported as one holdfast.ErrInvalid.
func NewRedis(eval RedisEval, cfg RedisConfig) (*Redis, error) {
	cfg = cfg.withDefaults()
	errs := cfg.validate()
	errs.check(eval == nil, "eval is nil: pass a function that runs scripts on your client")
	if len(errs) > 0 {
		return nil, invalid("new fence.Redis", "", errs...)
	}
	return &Redis{eval: eval, cfg: cfg}, nil
}

// Open registers the fence of the lease at keys, those that its holder is going to read or to
// write, unless a larger one is registered there for its name: then it fails with
// holdfast.ErrStale. In a Cluster keys may be in different slots; Open goes from one to the
// next, and if it fails, may have registered at some.
func (r *Redis) Open(ctx context.Context, l Lease, keys ...string) error {
	const op = "fence.Redis open"
	n, err := read(ctx, op, l)
	if err != nil {
		return err
	}
	fences, err := r.fences(op, n, keys)
	if err != nil {
		return err
	}
	for _, key := range fences {
		_, err := r.eval(ctx, openScript, []string{key}, strconv.FormatInt(n.fence, 10), r.cfg.Keep.Milliseconds())
		if err != nil {
			return wrap(op, n.name, refusal(op, n, err))
		}
	}
	return nil
}

// Set sets key to value, if the fence of the lease is the one that is registered there, and
// otherwise fails with holdfast.ErrStale. The value is what eval takes as an argument, with
// go-redis strings, bytes and numbers. A ttl of 0 keeps it for ever; otherwise it is at least a
// millisecond.
func (r *Redis) Set(ctx context.Context, l Lease, key string, value any, ttl time.Duration) error {
	const op = "fence.Redis set"
	if ttl < 0 || ttl > 0 && ttl < time.Millisecond {
		return invalid(op, "", fmt.Errorf("ttl is %v: it must be 0, for no end, or at least 1ms", ttl))
	}
	n, err := read(ctx, op, l)
	if err != nil {
		return err
	}
	_, err = r.run(ctx, op, n, setScript, []string{key}, value, ttl.Milliseconds())
	return wrap(op, n.name, err)
}

// Eval runs a script of the caller's, if the fence of the lease is the one that is registered
// at each of its keys, and otherwise fails with holdfast.ErrStale and runs nothing of it. The
// script finds keys and args in KEYS and ARGV as always; it must not begin with a shebang.
// In a Cluster all its keys are in one slot. Of what the script reads, only the keys that are
// in keys are guarded.
//
// Other replies and errors are what eval returned, unchanged: with go-redis, redis.Nil for nil.
func (r *Redis) Eval(ctx context.Context, l Lease, script string, keys []string, args ...any) (any, error) {
	const op = "fence.Redis eval"
	if strings.HasPrefix(script, "#!") {
		return nil, invalid(op, "", errors.New("the script begins with a shebang: leave that line out"))
	}
	n, err := read(ctx, op, l)
	if err != nil {
		return nil, err
	}
	return r.run(ctx, op, n, script, keys, args...)
}

// run runs a script behind the check.
func (r *Redis) run(ctx context.Context, op string, n numbers, script string, keys []string, args ...any) (any, error) {
	fences, err := r.fences(op, n, keys)
	if err != nil {
		return nil, err
	}
	keys = append(keys[:len(keys):len(keys)], fences...)
	args = append(args[:len(args):len(args)], strconv.FormatInt(n.fence, 10), r.cfg.Keep.Milliseconds(), len(fences))
	reply, err := r.eval(ctx, checkPrelude+script, keys, args...)
	return reply, refusal(op, n, err)
}

// fences returns the keys that hold the fences of keys, each once.
//
// A fence is in the slot of its key because its hash tag is the key's, or the whole key. What
// stands behind the first closing brace is the name of the lock, so that no two pairs of tag and
// name have the same key.
func (r *Redis) fences(op string, n numbers, keys []string) ([]string, error) {
	if len(keys) == 0 {
		return nil, invalid(op, n.name, errors.New("there is no key: name those that are read or written"))
	}
	fences := make([]string, 0, len(keys))
	seen := make(map[string]bool, len(keys))
	for _, key := range keys {
		tag := key
		if _, after, ok := strings.Cut(key, "{"); ok {
			if inner, _, ok := strings.Cut(after, "}"); ok && inner != "" {
				tag = inner
			}
		}
		if tag == "" || strings.Contains(tag, "}") {
			return nil, invalid(op, n.name, fmt.Errorf(
				"key is %.80q: it must not be empty, nor have a closing brace without a hash tag; give it a hash tag", key))
		}
		if !seen[tag] {
			seen[tag] = true
			fences = append(fences, r.cfg.Prefix+"{"+tag+"}"+n.name)
		}
	}
	return fences, nil
}

// refusal turns a script's reply that refuses the holder into a StaleError. Other errors stay.
func refusal(op string, n numbers, err error) error {
	if err == nil {
		return nil
	}
	if _, after, ok := strings.Cut(err.Error(), "STALEFENCE "); ok {
		number, _, _ := strings.Cut(after, " ")
		if stored, bad := strconv.ParseInt(number, 10, 64); bad == nil {
			return stale(op, n, stored)
		}
	}
	return err
}
