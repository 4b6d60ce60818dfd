package redislock

import (
	"strconv"
	"strings"

	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// lone holds the arguments of a call of lua/quorum_lone.lua, which asks for one lock.
type lone struct {
	record, replID, us, value string
	ttl, keep                 int64 // ms
}

// keepCounters is for how long a counter outlives its lock, in ms, see lua/quorum_node.lua.
const keepCounters = 3_600_000

// fill prepares the call for the request of an op, of a node with that record. It reports
// false where it is none that the script knows, or is not sure to be granted a number. Who does
// not know a record that serves learns it, by naming one that no node has.
func (l *lone) fill(op, id string, ttl int64, known *protocol.Record, epoch, constants string) bool {
	us, plain := strings.CutPrefix(op, "x1 ")
	n, err := strconv.ParseInt(us, 10, 64)
	if !plain || err != nil || len(us) != 16 {
		return false
	}
	*l = lone{us: us, ttl: ttl, keep: keepCounters + ttl}
	if known != nil && known.Serves(epoch, constants) {
		l.record, l.replID = known.Text, known.ReplID
		l.value = id + " " + us + " " + us[:10] + "." + formatInt(n%1_000_000)
		return known.Grants(n)
	}
	return true
}

// askLone makes a request by the script that knows the plainest case only, where it is one. It
// reports whether the request was answered, and otherwise whether it was tried: what that
// script does not do is nothing for the one for plain cases either.
func (q *Quorum) askLone(n *node, b *batch, r *request, epoch string) (settled, tried bool) {
	f := b.frame(0)
	l := &f.lone
	if !l.fill(r.op, r.id, r.ttl, n.record.Load(), epoch, q.constants) {
		return false, false
	}
	f.keys = 3
	f.args = append(f.args[:0], nil, nil, &f.keys, &nodeKey, &topKey, &r.key,
		&l.record, &l.replID, &l.us, &l.value, &l.ttl, &l.keep)
	asked := q.clock.Now()
	reply, err := f.call.send(n.life, b.line, n.only.node, loneScript(), f.args)
	if err == nil && len(reply) == 0 {
		err = errGarbled
	}
	if err != nil {
		q.fail(n, []*request{r}, err)
		return true, true
	}
	n.timed(q.clock.Now().Sub(asked))
	payload := ""
	if len(reply) > 1 {
		payload = reply[1]
	}
	if reply[0] == "~" {
		if record, err := protocol.ParseRecord(payload); err == nil {
			n.record.Store(record)
		}
		return false, true
	}
	q.learn(n, protocol.NodeHead{State: protocol.Serving, Epoch: epoch})
	r.finish(reply[0], payload, nil)
	return true, true
}
