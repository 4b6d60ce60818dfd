package redislock

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock/internal/model"
	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

// quorumDump describes what a node of a quorum keeps about names, ARGV[1] and on.
const quorumDump = `
local out = {}
for _, key in ipairs(ARGV) do
  local v = redis.pcall('GET', key)
  if type(v) == 'table' then v = 'wrong' end
  local function ends(k) return redis.call('HGET', 'v:ends', k) or '0' end
  local line = v and v .. ' ends ' .. ends(key) or ''
  local c = redis.call('GET', 'holdfast.c:' .. key)
  if c then line = line .. '|' .. c .. ' ends ' .. ends('holdfast.c:' .. key) end
  local q = redis.call('ZRANGE', 'holdfast.i:' .. key, 0, -1, 'WITHSCORES')
  for i = 1, #q, 2 do line = line .. '|' .. q[i] .. ' ' .. string.format('%.0f', q[i + 1]) end
  if #q > 0 then line = line .. ' ends ' .. ends('holdfast.i:' .. key) end
  out[#out + 1] = line
end
out[#out + 1] = redis.call('GET', 'holdfast.node') or ''
out[#out + 1] = redis.call('GET', 'holdfast.top') or ''
for _, a in ipairs(redis.call('LRANGE', 'holdfast.audit', 0, -1)) do out[#out + 1] = a end
for _, p in ipairs(redis.call('LRANGE', 'v:pushes', 0, -1)) do out[#out + 1] = p end
redis.call('DEL', 'v:pushes')
return out`

// nodeTwin is a real node of a quorum and its mirror.
type nodeTwin struct {
	twin
	plain  string // SHA-1
	lone   string
	heal   string
	node   model.QuorumNode
	consts protocol.QuorumConstants
	tries  []quorumTry
	known  *protocol.Record // by the client, of lone calls
	seen   map[string]int
	epochs []string // that the node was in
	words  int      // that were used
	pushes []string // by the mirror in this step
}

// quorumTry is an attempt.
type quorumTry struct {
	id         string
	lock       int
	span, last int64
	ttl        int64
}

func newNodeTwin(t testing.TB, seed uint64) *nodeTwin {
	server := testserver.Redis(t, testserver.RedisOptions{})
	conn, err := server.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	w := &nodeTwin{seen: map[string]int{}}
	w.t, w.conn, w.r = t, conn, rand.New(rand.NewPCG(seed, 0))
	load := func(source string) string { return w.do("SCRIPT", "LOAD", source).(string) }
	w.script, w.plain = load(virtual+quorumScript().source), load(virtual+plainScript().source)
	w.lone = load(virtual + loneScript().source)
	w.heal, w.dump = load(virtual+healScript().source), load(quorumDump)
	return w
}

// begin empties the node and makes up attempts.
func (w *nodeTwin) begin() {
	w.do("FLUSHALL")
	w.log, w.epochs = w.log[:0], append(w.epochs[:0], "")
	w.ears = map[string]bool{callers[0]: true}
	w.consts = protocol.QuorumConstants{MaxTTL: 3*time.Second + time.Duration(w.r.IntN(100))*time.Millisecond, Nodes: 3, Group: "g 1"}
	w.node = model.QuorumNode{Micros: 1_700_000_000_000_000 + w.r.Int64N(1e9), Term: "a0", Locks: make([]model.QuorumLock, 1+w.r.IntN(3)), Ahead: 10_000}
	w.node.Listens = func(inbox string) bool { return w.ears[inbox] }
	w.tries, w.known = w.tries[:0], nil
	for i := range 6 {
		id := fmt.Sprintf("%022d", i+1)
		if w.r.IntN(2) == 0 {
			id = "web 1 " + id
		}
		w.tries = append(w.tries, quorumTry{id: id, lock: w.r.IntN(len(w.node.Locks)), span: pick[int64](w.r, 1, 1, 4), ttl: pick[int64](w.r, 400, 2000, 3000)})
	}
}

// disturb changes the world around the locks, and what the node keeps.
func (w *nodeTwin) disturb() {
	n := &w.node
	n.Micros += pick(w.r, 0, 0, 1, 1000, 20_000, 100_000, 300_000, 1_100_000, w.r.Int64N(4e6))
	switch w.r.IntN(200) {
	case 0:
		n.Micros += pick[int64](w.r, 1_900_000_000, 3_700_000_000) // counters run out
	case 1:
		n.Micros -= 2_000_000
	case 2:
		n.Term = pick(w.r, "a0", "b1", "c2")
	case 3:
		n.Replica = true
	case 4, 5, 6:
		n.Replica = false
	case 7:
		n.Record = model.QuorumRecord{}
		w.do("DEL", "holdfast.node")
	case 8:
		n.Top, n.HasTop = 0, false
		w.do("DEL", "holdfast.top")
	case 9, 10, 11:
		w.ears[pick(w.r, callers...)] = w.r.IntN(2) == 0
	case 12, 13:
		w.foreign()
	}
	role := "master"
	if n.Replica {
		role = "slave"
	}
	info := "# Replication\r\nrole:" + role + "\r\nmaster_replid:" + n.Term + "\r\nmaster_replid2:0000\r\n"
	w.do("MSET", "v:now", strconv.FormatInt(n.Micros, 10), "v:info", info)
	w.do("DEL", "v:ears")
	for inbox, on := range w.ears {
		if on {
			w.do("SADD", "v:ears", inbox)
		}
	}
}

// foreign lets a client that is no holdfast write a key.
func (w *nodeTwin) foreign() {
	i := w.r.IntN(len(w.node.Locks))
	l, key := &w.node.Locks[i], model.QuorumKey(i)
	if l.Kind != model.Free {
		return
	}
	if w.r.IntN(6) == 0 {
		w.do("RPUSH", key, "x")
		l.Kind = model.Wrong
		return
	}
	w.do("SET", key, "somebody's token")
	l.Kind, l.Value = model.Exclusive, model.Value{ID: "somebody's token", Foreign: true}
}

// request makes up a request of an attempt.
func (w *nodeTwin) request(k *quorumTry) model.QuorumRequest {
	q := model.QuorumRequest{Lock: k.lock, ID: k.id, TTL: k.ttl}
	near := func() int64 { return max(0, k.last+pick[int64](w.r, 0, 0, 0, 1, 7, -1)) }
	switch n := w.r.IntN(20); {
	case n < 9:
		q.Op, q.A = pick[byte](w.r, 'x', 'X'), k.span
		q.B = w.node.Micros + pick[int64](w.r, 0, 0, 0, 5, -1e6, 1e6)
		if w.r.IntN(300) == 0 {
			q.B += 1e15 // a clock that is years ahead
		}
		if q.Op == 'X' {
			q.At = w.node.Micros - w.r.Int64N(1e6)
		}
	case n < 13:
		q.Op, q.A, q.B = 'v', near(), pick(w.r, 1, k.span)
	case n < 14:
		q.Op, q.A = 'm', k.last
		q.B = q.A + pick[int64](w.r, 0, 1, 5, 5, -1)
	case n < 17:
		q.Op, q.ID = pick[byte](w.r, 'r', 'r', 'd'), k.id[len(k.id)-tokenSize:]
	case n < 19:
		q.Op = 'l'
	default:
		q.Op, q.A, q.ID = 'b', pick(w.r, 0, k.last, k.last), "audit"
	}
	return q
}

func opOf(q *model.QuorumRequest) string {
	switch q.Op {
	case 'X':
		return fmt.Sprintf("X%d %d %d", q.A, q.B, q.At)
	case 'b':
		return fmt.Sprintf("b%d", q.A)
	case 'x', 'v', 'm':
		return fmt.Sprintf("%c%d %d", q.Op, q.A, q.B)
	}
	return string(q.Op)
}

// constants are those of the deployment, but not always.
func (w *nodeTwin) constants() protocol.QuorumConstants {
	if w.r.IntN(60) == 0 {
		return protocol.QuorumConstants{MaxTTL: 9999 * time.Millisecond, Nodes: 5, Group: "other"}
	}
	return w.consts
}

// step makes one call of both and compares.
func (w *nodeTwin) step() {
	w.t.Helper()
	w.pushes = w.pushes[:0]
	seeded := w.node.Record.Set && w.node.Record.Term == w.node.Term && w.node.Record.Epoch[0] != '-'
	if w.r.IntN(12) == 0 || !seeded && w.r.IntN(3) > 0 {
		w.healStep()
	} else {
		w.requestStep()
	}
	names := []string{"EVALSHA", w.dump, "0"}
	for i := range w.node.Locks {
		names = append(names, model.QuorumKey(i))
	}
	state, want := strs(w.do(names...)), w.describe()
	if !slices.Equal(state, want) {
		w.t.Fatalf("the node has\n%q, the mirror\n%q, at the end of\n%s", state, want, w.story())
	}
}

func (w *nodeTwin) requestStep() {
	w.t.Helper()
	call := model.QuorumCall{Constants: w.constants(), Epoch: w.epochs[len(w.epochs)-1], Inbox: pick(w.r, callers...)}
	if w.r.IntN(20) == 0 {
		call.Epoch = pick(w.r, w.epochs...)
	}
	var asked []*quorumTry
	for range pick(w.r, 1, 1, 1, 2, 4) {
		k := &w.tries[w.r.IntN(len(w.tries))]
		asked = append(asked, k)
		call.Requests = append(call.Requests, w.request(k))
	}
	w.log = append(w.log, fmt.Sprintf("%d %s %+v", w.node.Micros, w.node.Term, call))
	settled, tried := w.alone(call, asked[0])
	if settled {
		return
	}
	if !tried {
		call.Requests, asked = w.plainly(call, asked)
	}
	if len(call.Requests) == 0 {
		return
	}
	reply, err := w.conn.Do(argsOf(w.script, &call)...)
	words := make([]model.QuorumWord, len(asked))
	stored := w.node.Record.Constants
	head, ok := w.node.Call(&call, words)
	if err != nil || !ok {
		got, want := "!constants "+stored.String(), "READONLY"
		if err == nil {
			got, want = strings.Join(strs(reply), " "), got
		} else {
			got, _, _ = strings.Cut(err.Error(), " ")
		}
		if ok || got != want {
			w.t.Fatalf("the node refused with %q, the mirror did not or otherwise, at the end of\n%s", got, w.story())
		}
		w.seen[want[:2]]++
		return
	}
	w.log = append(w.log, fmt.Sprintf("    %q", strs(reply)))
	got := strs(reply)
	h, all, err := protocol.ParseHead(got[0])
	if err != nil || h != head {
		w.t.Fatalf("the node says %+v (%v), the mirror %+v, at the end of\n%s", h, err, head, w.story())
	}
	w.compare("", strings.Split(all, " "), got[1:], call.Requests, words, asked)
}

func argsOf(script string, call *model.QuorumCall) []string {
	args := []string{"EVALSHA", script, strconv.Itoa(2 + len(call.Requests)), "holdfast.node", "holdfast.top"}
	tail := []string{call.Constants.String(), call.Epoch, call.Inbox}
	for i := range call.Requests {
		q := &call.Requests[i]
		args = append(args, model.QuorumKey(q.Lock))
		tail = append(tail, opOf(q), q.ID, strconv.FormatInt(q.TTL, 10))
	}
	return append(args, tail...)
}

// alone makes the call of the script for the plainest case, as a client does, and reports
// whether that was answered, and whether it was made. What it has done the mirror does too.
func (w *nodeTwin) alone(call model.QuorumCall, asked *quorumTry) (settled, tried bool) {
	w.t.Helper()
	if w.r.IntN(3) > 0 { // as if others had taught it, or it had asked
		w.known, _ = protocol.ParseRecord(w.record())
	}
	var l lone
	q := &call.Requests[0]
	if len(call.Requests) > 1 || w.r.IntN(5) == 0 || !l.fill(opOf(q), q.ID, q.TTL, w.known, call.Epoch, call.Constants.String()) {
		return false, false
	}
	got := strs(w.do("EVALSHA", w.lone, "3", "holdfast.node", "holdfast.top", model.QuorumKey(q.Lock),
		l.record, l.replID, l.us, l.value, strconv.FormatInt(l.ttl, 10), strconv.FormatInt(l.keep, 10)))
	w.log = append(w.log, fmt.Sprintf("    alone %q", got))
	var word model.QuorumWord
	same, mine := l.record != "" && l.record == w.record(), false
	if same {
		word, mine = w.node.Lone(&call)
	}
	if mine != (got[0] != "~") {
		w.t.Fatalf("the node answered %q, the mirror %v %+v, at the end of\n%s", got, mine, word, w.story())
	}
	if mine {
		w.compare("alone ", got[:1], got[1:], call.Requests, []model.QuorumWord{word}, []*quorumTry{asked})
		return true, true
	}
	if (len(got) > 1) == same {
		w.t.Fatalf("the node answered %q, and has the record %q, at the end of\n%s", got, w.record(), w.story())
	}
	if len(got) == 1 {
		w.seen["alone ~"]++
	} else if w.known, _ = protocol.ParseRecord(got[1]); w.known != nil {
		w.seen["alone record"]++
	}
	return false, true
}

// plainly makes the call of the script for plain cases, as a client does, and returns the
// requests that it leaves. What it has done the mirror does too.
func (w *nodeTwin) plainly(call model.QuorumCall, asked []*quorumTry) (left []model.QuorumRequest, of []*quorumTry) {
	w.t.Helper()
	var back, others []int
	for i, q := range call.Requests {
		switch q.Op {
		case 'r', 'd':
			back = append(back, i)
		case 'x', 'X':
			others = append(others, i)
		default:
			return call.Requests, asked
		}
	}
	if w.node.Replica && len(back) > 0 || w.r.IntN(4) == 0 {
		return call.Requests, asked // a replica lets nothing be written; and the other script is compared as well
	}
	plain := call
	plain.Requests = nil
	var tries []*quorumTry
	for _, i := range append(back, others...) {
		plain.Requests, tries = append(plain.Requests, call.Requests[i]), append(tries, asked[i])
	}
	got := strs(w.do(argsOf(w.plain, &plain)...))
	w.log = append(w.log, fmt.Sprintf("    plainly %q", got))
	words := strings.Split(got[0], " ")
	if w.node.Replica && strings.Trim(got[0], "~ ") != "" {
		w.t.Fatalf("a replica answered, at the end of\n%s", w.story())
	}
	if w.node.Replica {
		w.seen["plain replica"]++
	}
	done, ended, all := plain, []*quorumTry(nil), []string(nil)
	done.Requests = nil
	for i, word := range words {
		q := plain.Requests[i]
		if word == "~" {
			left, of = append(left, q), append(of, tries[i])
			w.seen["plain "+string(q.Op)+" ~"]++
		} else {
			done.Requests, ended, all = append(done.Requests, q), append(ended, tries[i]), append(all, word)
		}
	}
	if len(done.Requests) == 0 {
		return left, of
	}
	expected := make([]model.QuorumWord, len(all))
	if op := done.Requests[len(done.Requests)-1].Op; op == 'r' || op == 'd' {
		w.node.GiveBack(done.Requests, expected)
	} else if _, ok := w.node.Call(&done, expected); !ok {
		w.t.Fatalf("the mirror refused, at the end of\n%s", w.story())
	}
	w.compare("plain ", all, got[1:], done.Requests, expected, ended)
	return left, of
}

// compare compares the replies, word by word, as the client reads them.
func (w *nodeTwin) compare(how string, got, payloads []string, requests []model.QuorumRequest, words []model.QuorumWord, asked []*quorumTry) {
	w.t.Helper()
	for i, text := range got {
		payload := ""
		if strings.ContainsAny(text[:1], "hsb!?") && len(payloads) > 0 {
			payload, payloads = payloads[0], payloads[1:]
		}
		if text[0] == protocol.Failed {
			payload = ""
		}
		a := protocol.Parse(text, int(requests[i].A))
		if a != words[i].Answer || payload != words[i].Payload {
			w.t.Fatalf("the node answered %q %q, the mirror %+v, at the end of\n%s", text, payload, words[i], w.story())
		}
		w.seen[how+string(requests[i].Op)+" "+string(a.Kind)]++
		if a.Kind == protocol.Granted {
			asked[i].last = a.N + int64(a.Span) - 1
		}
	}
	w.pushes = append(w.pushes, w.node.Published...)
	w.seen["push"] += len(w.node.Published)
}

func (w *nodeTwin) healStep() {
	w.t.Helper()
	w.words++
	current := w.epochs[len(w.epochs)-1]
	ops := []string{"status", "raise", "raise", "seed"}
	if current == "" || current[0] == '-' {
		ops = []string{"status", "seed", "seed", "raise"}
	}
	h := model.QuorumHeal{Constants: w.constants(), Op: pick(w.r, ops...), Word: fmt.Sprintf("W%d", w.words), Seen: current}
	h.Floor = max(0, w.node.Top+pick[int64](w.r, 0, 5, -5, 1e6))
	h.None, h.Regroup = w.r.IntN(2) == 0, w.r.IntN(30) == 0
	if w.r.IntN(10) == 0 {
		h.Seen = pick(w.r, w.epochs...)
	}
	w.log = append(w.log, fmt.Sprintf("%d %s %+v", w.node.Micros, w.node.Term, h))
	none, regroup := "", ""
	if h.None {
		none = "none"
	}
	if h.Regroup {
		regroup = "regroup"
	}
	reply, err := w.conn.Do("EVALSHA", w.heal, "2", "holdfast.node", "holdfast.top",
		h.Constants.String(), h.Op, h.Word, h.Seen, strconv.FormatInt(h.Floor, 10), none, regroup)
	want, done, ok := w.node.Heal(&h)
	if err != nil || !ok {
		if ok || err == nil || !strings.HasPrefix(err.Error(), "READONLY") {
			w.t.Fatalf("the node answered %v, the mirror %v, at the end of\n%s", err, ok, w.story())
		}
		return
	}
	w.log = append(w.log, fmt.Sprintf("    %q", strs(reply)))
	got, was, err := protocol.ParseStatus(strs(reply))
	if err != nil || got != want || was != done {
		w.t.Fatalf("the node answered\n%+v %v (%v), the mirror\n%+v %v, at the end of\n%s", got, was, err, want, done, w.story())
	}
	w.seen[h.Op+" "+string(rune(want.State))+" "+strconv.FormatBool(done)]++
	if want.Epoch != current {
		w.epochs = append(w.epochs, want.Epoch)
	}
}

// describe is quorumDump of the mirror.
func (w *nodeTwin) describe() []string {
	n := &w.node
	var out []string
	for i := range n.Locks {
		l := &n.Locks[i]
		line := ""
		switch l.Kind {
		case model.Wrong:
			line = "wrong ends 0"
		case model.Exclusive:
			line = fmt.Sprintf("%s ends %d", l.Value, l.Ends)
		}
		if l.Count > 0 {
			line += fmt.Sprintf("|%d ends %d", l.Count, l.CountEnds)
		}
		for _, x := range l.Waiting {
			line += fmt.Sprintf("|%s %d", x.Inbox, x.Order)
		}
		if len(l.Waiting) > 0 {
			line += fmt.Sprintf(" ends %d", l.WaitEnds)
		}
		out = append(out, line)
	}
	top := ""
	if n.HasTop {
		top = strconv.FormatInt(n.Top, 10)
	}
	out = append(out, w.record(), top)
	for _, line := range slices.Backward(n.Audit) {
		out = append(out, line)
	}
	return append(out, w.pushes...)
}

// record is what the mirror keeps about itself, as scripts write it.
func (w *nodeTwin) record() string {
	r := &w.node.Record
	if !r.Set {
		return ""
	}
	return fmt.Sprintf("v1 %s %s %d %d %d %d %s", r.Term, r.Epoch, r.Start, r.Floor, r.Mark, r.Since, r.Constants)
}

// TestTheMirrorOfANodeIsTheScripts: a node of the model's quorum does what the scripts do, word
// by word and key by key.
func TestTheMirrorOfANodeIsTheScripts(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("HOLDFAST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("again with HOLDFAST_SEED=%d", seed)
		}
	})
	sequences, steps := 100, 0
	if n, err := strconv.Atoi(os.Getenv("HOLDFAST_CROWD")); err == nil {
		sequences *= n
	}
	w := newNodeTwin(t, seed)
	for range sequences {
		w.begin()
		for range 120 {
			w.disturb()
			w.step()
			steps++
		}
	}
	t.Logf("%d sequences, %d steps, seed %d: %v", sequences, steps, seed, w.seen)
	// What a search relies on has to have been compared.
	for _, what := range []string{
		"push", "RE", "!c", "x +", "x h", "x e", "x w", "x f", "x !", "X +", "X h", "v =", "v -", "v c", "v e", "v w", "v f", "m =", "m -", "m c",
		"alone x +", "alone x h", "alone ~", "alone record", "plain x +", "plain x h", "plain x ~", "plain replica", "plain X +", "plain X h", "plain X ~", "plain r =", "plain r ~", "plain d =", "plain d ~",
		"r =", "r -", "d =", "d -", "l =", "l -", "b b", "b s", "b -",
		"status v false", "status f false", "status s false", "status g false", "raise s true", "raise s false", "raise g true", "raise f false",
		"seed g true", "seed s true", "seed s false", "seed f false", "seed v false",
	} {
		if w.seen[what] == 0 {
			t.Errorf("never answered in %d steps: %q", steps, what)
		}
	}
}
