package redislock

import (
	"context"
	_ "embed"
	"strings"

	"github.com/redis/go-redis/v9"
)

var (
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
	//go:embed lua/inspect.lua
	inspectLua string

	// lockScript is one chunk: each part uses the locals of those before it, and the call
	// returns after the second where nobody stood in anybody's way.
	lockScript    = redis.NewScript(gateLua + lockLua + groupLua + queueLua + slowLua)
	inspectScript = redis.NewScript(inspectLua)
)

// call is an EVALSHA of lockScript, or the EVAL that has to follow it once. It is sent once:
// the library would send it again after a lost reply, and the copy could be carried out at
// any later time.
type call struct{ *redis.StringSliceCmd }

// NoRetry implements redis.Cmder.
func (call) NoRetry() bool { return true }

var evalsha, eval, lockHash = "evalsha", "eval", lockScript.Hash()

// send runs the script with what args[2:] says and returns its reply. args[:2] is filled in.
func send(ctx context.Context, node *redis.Client, args []any) ([]string, error) {
	args[0], args[1] = &evalsha, &lockHash
	c := call{redis.NewStringSliceCmd(ctx, args...)}
	err := node.Process(ctx, c)
	if err != nil && strings.HasPrefix(err.Error(), "NOSCRIPT") {
		// Nothing was carried out. The server keeps the script from now on.
		args[0], args[1] = &eval, &lockSource
		c = call{redis.NewStringSliceCmd(ctx, args...)}
		err = node.Process(ctx, c)
	}
	return c.Val(), err
}

var lockSource = gateLua + lockLua + groupLua + queueLua + slowLua
