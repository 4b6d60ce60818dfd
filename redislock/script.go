package redislock

import (
	"context"
	_ "embed"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed lua/single.lua
	singleLua string
	//go:embed lua/pass.lua
	passLua string
	//go:embed lua/gate.lua
	gateLua string
	//go:embed lua/lock.lua
	lockLua string
	//go:embed lua/group.lua
	groupLua string
	//go:embed lua/queue.lua
	queueLua string
	//go:embed lua/slow.lua
	slowLua string
	//go:embed lua/value.lua
	valueLua string
	//go:embed lua/count.lua
	countLua string
	//go:embed lua/inspect.lua
	inspectLua string
	//go:embed lua/trial.lua
	trialLua string
	//go:embed lua/init.lua
	initLua string
	//go:embed lua/quorum_node.lua
	quorumNodeLua string
	//go:embed lua/quorum.lua
	quorumLua string
	//go:embed lua/quorum_plain.lua
	quorumPlainLua string
	//go:embed lua/quorum_lone.lua
	quorumLoneLua string
	//go:embed lua/quorum_heal.lua
	quorumHealLua string
	//go:embed lua/quorum_inspect.lua
	quorumInspectLua string

	// lockScript is one chunk: each part uses the locals of those before it, and the call
	// returns early where nobody stood in anybody's way.
	lockScript   = onFirstUse(gateLua, lockLua, groupLua, queueLua, slowLua)
	singleScript = onFirstUse(singleLua)
	passScript   = onFirstUse(passLua)
	valueScript  = onFirstUse(gateLua, valueLua)
	countScript  = onFirstUse(gateLua, countLua)

	// On the nodes of a quorum: requests, and what heals nodes.
	quorumScript = onFirstUse(quorumNodeLua, quorumLua)
	plainScript  = onFirstUse(quorumPlainLua)
	loneScript   = onFirstUse(quorumLoneLua)
	healScript   = onFirstUse(quorumNodeLua, quorumHealLua)

	inspectScript       = sync.OnceValue(func() *redis.Script { return redis.NewScript(inspectLua) })
	trialScript         = sync.OnceValue(func() *redis.Script { return redis.NewScript(trialLua) })
	quorumInspectScript = sync.OnceValue(func() *redis.Script { return redis.NewScript(quorumInspectLua) })
	initScript          = sync.OnceValue(func() *redis.Script { return redis.NewScript(initLua) })
)

// script is a script that calls are made of.
type script struct{ source, hash string }

// onFirstUse puts a script together when it is first used: programs that link this package
// and use another engine do not pay for it at their start.
func onFirstUse(parts ...string) func() *script {
	return sync.OnceValue(func() *script {
		source := strings.Join(parts, "")
		return &script{source: source, hash: redis.NewScript(source).Hash()}
	})
}

// call is an EVALSHA, or the EVAL that has to follow it once. It is sent once: the library
// would send it again after a lost reply, and the copy could be carried out at any later
// time. It may be used again when it is over.
type call struct {
	*redis.StringSliceCmd
	args []any
}

// NoRetry implements redis.Cmder.
func (*call) NoRetry() bool { return true }

// Args implements redis.Cmder.
func (c *call) Args() []any { return c.args }

var evalsha, eval = "evalsha", "eval"

func newCall() *call {
	return &call{StringSliceCmd: redis.NewStringSliceCmd(context.Background(), evalsha, lockScript().hash, 0)}
}

// send runs the script with what args[2:] says and returns its reply, which is valid until the
// next call. args[:2] is filled in.
func (c *call) send(ctx context.Context, l *line, node *redis.Client, s *script, args []any) ([]string, error) {
	args[0], args[1] = &evalsha, &s.hash
	reply, err := c.process(ctx, l, node, args)
	if isNoScript(err) {
		// Nothing was carried out. The server keeps the script from now on.
		args[0], args[1] = &eval, &s.source
		reply, err = c.process(ctx, l, node, args)
	}
	return reply, err
}

// process makes the call on the line where that has a wire, and else by the library.
func (c *call) process(ctx context.Context, l *line, node *redis.Client, args []any) ([]string, error) {
	if w := l.ready(); w != nil {
		return l.do(w, args)
	}
	err := node.Process(ctx, c.with(args))
	return c.Val(), err
}

// with readies the call to be made, again or for the first time.
func (c *call) with(args []any) *call {
	c.args = args
	c.SetErr(nil)
	c.SetVal(nil)
	return c
}
