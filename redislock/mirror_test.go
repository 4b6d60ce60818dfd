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

// virtual stands before the scripts and gives them a clock, replicas and listeners of the
// test's making, and a TTL by that clock. Everything else is the real server's.
const virtual = `
local redis = (function()
  local real = redis
  local now = tonumber(real.call('GET', 'v:now'))
  local ms = math.floor(now / 1000)
  local full = real.call('EXISTS', 'v:full') == 1
  local ends = real.call('HGETALL', 'v:ends')
  for i = 1, #ends, 2 do
    if ms > tonumber(ends[i + 1]) then real.call('DEL', ends[i]) real.call('HDEL', 'v:ends', ends[i]) end
  end
  local function lives(key, ttl) real.call('HSET', 'v:ends', key, string.format('%d', ms + ttl)) end
  local function set(f, ...)
    local args, px, nx, get = {}, nil, false, false
    local all = {...}
    local i = 1
    while i <= #all do
      if all[i] == 'PX' then px = tonumber(all[i + 1]) i = i + 2
      else
        if i > 2 and all[i] == 'NX' then nx = true elseif i > 2 and all[i] == 'GET' then get = true end
        args[#args + 1] = all[i] i = i + 1
      end
    end
    if nx and full then return {err = 'OOM planted'} end
    local r = f('SET', unpack(args))
    if get or type(r) == 'table' and r.ok then
      if px then lives(args[1], px) else real.call('HDEL', 'v:ends', args[1]) end
    end
    return r
  end
  local function run(f, cmd, ...)
    local key, value = ...
    if cmd == 'TIME' then return {string.format('%d', math.floor(now / 1e6)), string.format('%d', now % 1e6)} end
    if cmd == 'INFO' then return real.call('GET', 'v:info') end
    if cmd == 'PUBLISH' then
      if real.call('SISMEMBER', 'v:ears', key) == 0 then return 0 end
      real.call('RPUSH', 'v:pushes', key .. ' ' .. value)
      return 1
    end
    if cmd == 'PUBSUB' then return {value, real.call('SISMEMBER', 'v:ears', value)} end
    if cmd == 'SET' then return set(f, ...) end
    if cmd == 'PEXPIRE' then
      if real.call('EXISTS', key) == 0 then return 0 end
      lives(key, tonumber(value))
      return 1
    end
    if cmd == 'PTTL' then
      if real.call('EXISTS', key) == 0 then return -2 end
      local e = real.call('HGET', 'v:ends', key)
      return e and tonumber(e) - ms or -1
    end
    local r = f(cmd, ...)
    if cmd == 'DEL' or cmd == 'ZREM' or cmd == 'HDEL' then
      for _, k in ipairs(cmd == 'DEL' and {...} or {key}) do
        if real.call('EXISTS', k) == 0 then real.call('HDEL', 'v:ends', k) end
      end
    end
    return r
  end
  return {
    call = function(...) return run(real.call, ...) end,
    pcall = function(...) return run(real.pcall, ...) end,
    error_reply = real.error_reply,
  }
end)()
`

// dump describes the keys of names, ARGV[1] and on, as describe does.
const dump = `
local out = {}
for _, key in ipairs(ARGV) do
  local v, line = redis.pcall('GET', key), ''
  if type(v) == 'table' then line = 'wrong'
  elseif v == 'holdfast:group' then
    local b = redis.call('HMGET', 'holdfast.g:' .. key, 'limit', 'held', 'up')
    line = 'group ' .. b[1] .. ' ' .. b[2] .. ' ' .. (b[3] or '')
    local m = redis.call('ZRANGE', 'holdfast.e:' .. key, 0, -1, 'WITHSCORES')
    for i = 1, #m, 2 do
      line = line .. '|' .. redis.call('HGET', 'holdfast.g:' .. key, m[i]) .. ' until ' .. string.format('%d', m[i + 1])
    end
  elseif v then line = v end
  for _, k in ipairs({v and key or '', v == 'holdfast:group' and 'holdfast.g:' .. key or '', v == 'holdfast:group' and 'holdfast.e:' .. key or ''}) do
    if k ~= '' then line = line .. ' ends ' .. (redis.call('HGET', 'v:ends', k) or '0') end
  end
  local q = redis.call('ZRANGE', 'holdfast.q:' .. key, 0, -1, 'WITHSCORES')
  for i = 1, #q, 2 do
    -- What was heard before the entry came says nothing: it is of an earlier one.
    local seen = redis.call('HGET', 'holdfast.w:' .. key, q[i])
    if seen and tonumber(seen) * 1000 < q[i + 1] - 999 then seen = '0' end
    line = line .. '\n' .. string.format('%.0f', q[i + 1]) .. ' ' .. (seen or '0') .. ' ' .. q[i]
  end
  out[#out + 1] = line
end
out[#out + 1] = redis.call('GET', 'holdfast.fence') or '0'
out[#out + 1] = redis.call('GET', 'holdfast.epoch') or ''
for _, p in ipairs(redis.call('LRANGE', 'v:pushes', 0, -1)) do out[#out + 1] = p end
redis.call('DEL', 'v:pushes')
return out`

// twin is a real server and its mirror.
type twin struct {
	t      testing.TB
	conn   *testserver.Conn
	single string // SHA-1
	pass   string
	script string
	dump   string
	r      *rand.Rand
	mirror model.Server
	ears   map[string]bool
	claims []claim
	names  []string
	limits protocol.Constants
	gated  bool
	still  bool // next to no time passes, and nothing happens
	log    []string
	seen   map[string]int // what was answered, and how often
}

// claim is what a client asks for: one token, one name, one mode.
type claim struct {
	id, name, ask string
	caller        string
	ttl           int64
	top           int64
	waited        bool
}

var callers = []string{"holdfast.in:A", "holdfast.in:B"}

func newTwin(t testing.TB, seed uint64) *twin {
	server := testserver.Redis(t, testserver.RedisOptions{})
	conn, err := server.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	w := &twin{t: t, conn: conn, seen: map[string]int{}, r: rand.New(rand.NewPCG(seed, 0))}
	load := func(source string) string { return w.do("SCRIPT", "LOAD", source).(string) }
	w.single = load(virtual + singleScript().source)
	// It replaces the key that is there, and is refused that as others are refused a new one.
	w.pass = load(strings.Replace(virtual, "if nx and full", "if px and full", 1) + passScript().source)
	w.script, w.dump = load(virtual+lockScript().source), load(dump)
	return w
}

func (w *twin) do(args ...string) any {
	w.t.Helper()
	reply, err := w.conn.Do(args...)
	if err != nil {
		w.t.Fatalf("%.60q: %v\n%s", args, err, w.story())
	}
	return reply
}

func (w *twin) story() string { return strings.Join(w.log[max(0, len(w.log)-60):], "\n") }

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// begin empties the server and makes up claims.
func (w *twin) begin() {
	w.do("FLUSHALL")
	w.log = w.log[:0]
	w.ears = map[string]bool{}
	w.names = []string{"lock:a", "lock:b", "lock:c"}[:1+w.r.IntN(3)]
	w.mirror = model.Server{Micros: 1_700_000_000_000_000 + w.r.Int64N(1e9), Term: "a0", Began: 0}
	w.mirror.Listens = func(inbox string) bool { return w.ears[inbox] }
	w.gated, w.still = w.r.IntN(2) == 0, w.r.IntN(6) == 0
	w.limits = protocol.Constants{MaxTTL: 3*time.Second + time.Duration(w.r.IntN(100))*time.Millisecond, Replicas: w.r.IntN(3), Lag: pick(w.r, time.Second, 3*time.Second)}
	w.mirror.Replicas, w.mirror.Marks = make([]model.Acks, 2), new(model.Marks)
	w.claims = w.claims[:0]
	modes := pick(w.r, []string{"x"}, []string{"x", "s", "u"}, []string{"p"}, []string{"x", "s", "u", "p"})
	for i := range 8 {
		mode, span := pick(w.r, modes...), pick(w.r, "1", "1", "4")
		ask := mode + span
		if mode == "p" {
			ask += pick(w.r, " 2 1", " 2 2", " 3 1", " 2 1")
		}
		id := fmt.Sprintf("%022d", i+1)
		if w.r.IntN(2) == 0 {
			id = "web 1 " + id
		}
		w.claims = append(w.claims, claim{id: id, name: pick(w.r, w.names...), ask: ask, caller: pick(w.r, callers...), ttl: pick[int64](w.r, 400, 2000, 3000)})
	}
}

// disturb changes the world around the locks.
func (w *twin) disturb() {
	m := &w.mirror
	if w.still {
		m.Micros += pick[int64](w.r, 0, 0, 0, 1)
		w.tell()
		return
	}
	m.Micros += pick(w.r, 0, 0, 1, 1000, 20_000, 50_000, 100_000, 300_000, 1_100_000, w.r.Int64N(4e6))
	switch w.r.IntN(80) {
	case 0:
		m.Micros += pick[int64](w.r, 70_000_000, 7_000_000)
	case 1:
		m.Micros -= 2_000_000
	case 2:
		m.Term = pick(w.r, "a0", "b1", "c2")
		m.Began = w.r.Int64N(20)
	case 3:
		m.Replica = true
	case 4, 5, 6:
		m.Replica = false
	case 7:
		m.Epoch = model.Epoch{}
		w.do("DEL", "holdfast.epoch")
	case 8:
		w.ears[pick(w.r, callers...)] = false
	case 9, 13, 14, 15:
		w.ears[pick(w.r, callers...)] = true
	case 10:
		m.Full = true
	case 16, 17, 18, 19:
		m.Full = false
	case 11:
		w.foreign()
	case 12:
		m.Counter += pick[int64](w.r, 1, 1, 1e3, 1e6)
		w.do("SET", "holdfast.fence", strconv.FormatInt(m.Counter, 10))
	}
	for i := range m.Replicas {
		if w.r.IntN(8) == 0 {
			m.Replicas[i] = model.Acks{Online: w.r.IntN(8) > 0, Offset: m.Replicas[i].Offset, Lag: pick[int64](w.r, 0, 0, 1, 3, 4)}
		}
		if w.r.IntN(2) == 0 {
			m.Replicas[i].Offset = m.Offset + pick[int64](w.r, 0, 0, -1)
		}
	}
	m.Offset += w.r.Int64N(3)
	w.tell()
}

// foreign lets a client that is no holdfast write a key.
func (w *twin) foreign() {
	name := pick(w.r, w.names...)
	l := w.mirror.Locks[name]
	if l == nil || l.Kind != model.Free || l.Ends != 0 {
		return
	}
	if w.r.IntN(6) == 0 {
		w.do("DEL", name)
		w.do("RPUSH", name, "x")
		*l = model.Lock{Kind: model.Wrong, Queue: l.Queue, QueueEnds: l.QueueEnds}
		return
	}
	w.do("SET", name, "somebody's token")
	*l = model.Lock{Kind: model.Exclusive, Value: model.Value{ID: "somebody's token", Foreign: true}, Queue: l.Queue, QueueEnds: l.QueueEnds}
}

// tell makes the server's surroundings those of the mirror.
func (w *twin) tell() {
	m := &w.mirror
	role := "master"
	if m.Replica {
		role = "slave"
	}
	info := "# Replication\r\nrole:" + role + "\r\nconnected_slaves:2\r\n"
	for i, a := range m.Replicas {
		state := "online"
		if !a.Online {
			state = "wait_bgsave"
		}
		info += fmt.Sprintf("slave%d:ip=127.0.0.1,port=1,state=%s,offset=%d,lag=%d\r\n", i, state, max(0, a.Offset), a.Lag)
		m.Replicas[i].Offset = max(0, a.Offset)
	}
	info += fmt.Sprintf("master_replid:%s\r\nmaster_replid2:0000\r\nmaster_repl_offset:%d\r\nsecond_repl_offset:%d\r\n", m.Term, m.Offset, m.Began)
	w.do("MSET", "v:now", strconv.FormatInt(m.Micros, 10), "v:info", info)
	w.do("DEL", "v:ears", "v:full")
	for inbox, on := range w.ears {
		if on {
			w.do("SADD", "v:ears", inbox)
		}
	}
	if m.Full {
		w.do("SET", "v:full", "1")
	}
}

// request makes up a request of a claim.
func (w *twin) request(c *claim) model.Request {
	q := model.Request{Key: c.name, ID: c.id, TTL: c.ttl}
	token := c.id[len(c.id)-tokenSize:]
	ask := c.ask
	if c.ask[0] == 'u' && w.r.IntN(3) == 0 {
		ask = "g" + c.ask[1:]
	}
	wait := strings.ToUpper(ask[:1]) + ask[1:]
	switch n := w.r.IntN(20); {
	case n < 10:
		q.Op = wait
		if !c.waited && n < 4 {
			q.Op = ask
		}
		c.waited = c.waited || q.Op == wait
	case n < 13:
		mode := c.ask
		rest := " " + mode[:1] + " 0 1"
		if mode[0] == 'p' {
			rest = " p " + strings.SplitN(mode, " ", 2)[1]
		}
		q.Op = "e" + strconv.FormatInt(c.top, 10) + rest
	case n < 16:
		q.Op, q.ID, q.TTL, c.waited = "r", token, 0, false
	case n < 18:
		q.Op = "c" + wait
		c.waited = c.waited && ask[0] == 'g'
	case n < 19:
		q.Op, q.ID, q.TTL = "d"+strconv.FormatInt(c.top, 10), token, 0
	default:
		q.Op, q.ID, q.TTL = "b"+strconv.FormatInt(pick(w.r, 0, c.top, c.top), 10), "audit", 0
	}
	return q
}

// step makes one call of both and compares.
func (w *twin) step() {
	w.t.Helper()
	caller := pick(w.r, callers...)
	call := model.Call{Micros: w.mirror.Micros + pick[int64](w.r, 0, 0, 0, 5, -1e6, 1e6), Inbox: caller}
	if w.r.IntN(2000) == 0 {
		call.Micros += 1e15 // a clock that is years ahead
	}
	if w.gated {
		call.Limits, call.Constants = w.limits, w.limits.String()
		if w.r.IntN(50) == 0 {
			call.Limits.MaxTTL++
			call.Constants = "9999 1 1"
			call.Limits = protocol.Constants{MaxTTL: 9999 * time.Millisecond, Replicas: 1, Lag: time.Second}
		}
		if w.r.IntN(3) == 0 {
			call.Known = w.mirror.Term + pick(w.r, " 0", " 5000", " 500000")
		}
	}
	var asked []*claim
	for range pick(w.r, 1, 1, 1, 2, 4) {
		c := &w.claims[w.r.IntN(len(w.claims))]
		if c.caller == caller && !slices.Contains(asked, c) {
			asked = append(asked, c)
			call.Requests = append(call.Requests, w.request(c))
		}
	}
	if w.r.IntN(3) == 0 {
		if p := w.passing(caller); p != nil {
			if !w.mirror.Full && w.r.IntN(6) == 0 {
				w.mirror.Full = true
				w.tell()
			}
			back, next := p[0], p[1]
			asked, call.Requests = p, []model.Request{
				{Key: back.name, ID: back.id[len(back.id)-tokenSize:], Op: "r"},
				{Key: next.name, ID: next.id, Op: pick(w.r, "x", "X") + next.ask[1:], TTL: next.ttl},
			}
			next.waited = next.waited || call.Requests[1].Op[0] == 'X'
		}
	}
	if len(asked) == 0 {
		return
	}
	w.log = append(w.log, fmt.Sprintf("%d %+v info %+v term %s", w.mirror.Micros, call, w.mirror.Replicas, w.mirror.Term))
	got := w.send(&call)
	reply := w.mirror.Call(&call)
	want := replyOf(reply)
	w.log = append(w.log, fmt.Sprintf("    %q", got))
	if !slices.Equal(clean(got), want) {
		w.t.Fatalf("the scripts answered\n%q, the mirror\n%q, at the end of\n%s", got, want, w.story())
	}
	w.seen["push"] += len(w.mirror.Published)
	w.seen[reply.Refused]++
	for i, word := range reply.Words {
		w.seen[call.Requests[i].Op[:1]+" "+string(protocol.Parse(word, 1).Kind)]++
		if a := protocol.Parse(word, 1); a.Kind == protocol.Granted {
			asked[i].top = a.N
		}
	}
	state := strs(w.do(append([]string{"EVALSHA", w.dump, "0"}, w.names...)...))
	if want := w.describe(); !slices.Equal(state, want) {
		w.t.Fatalf("the server has\n%q, the mirror\n%q, at the end of\n%s", state, want, w.story())
	}
}

// passing picks a claim of the caller that holds its name, and another one that wants the same
// name for itself.
func (w *twin) passing(caller string) []*claim {
	for i := range w.claims {
		c := &w.claims[i]
		if l := w.mirror.Locks[c.name]; c.caller != caller || l == nil || l.Value.ID != c.id {
			continue
		}
		for j := range w.claims {
			if next := &w.claims[j]; j != i && next.caller == caller && next.name == c.name && next.ask[0] == 'x' {
				return []*claim{c, next}
			}
		}
	}
	return nil
}

// send makes the call of the server, as the engine does.
func (w *twin) send(call *model.Call) []string {
	micros := strconv.FormatInt(call.Micros, 10)
	if q := call.Requests[0]; len(call.Requests) == 1 && call.Constants == "" && strings.ContainsAny(q.Op[:1], "rxX") {
		args := []string{"EVALSHA", w.single, "2", q.Key, "holdfast.fence", q.Op, q.ID, micros}
		if q.Op != "r" {
			args = append(args, strconv.FormatInt(q.TTL, 10), call.Inbox)
		}
		if got := strs(w.do(args...)); len(got) > 0 {
			return got
		}
	}
	if len(call.Requests) == 2 && call.Constants == "" {
		back, next := call.Requests[0], call.Requests[1]
		if back.Op == "r" && strings.ContainsAny(next.Op[:1], "xX") && back.Key == next.Key {
			args := []string{"EVALSHA", w.pass, "2", back.Key, "holdfast.fence", back.ID, next.Op, next.ID, micros, strconv.FormatInt(next.TTL, 10)}
			if got := strs(w.do(args...)); len(got) > 0 {
				w.seen["passed"]++
				return got
			}
			w.seen["not passed"]++
			if l := w.mirror.Locks[back.Key]; w.mirror.Full && l.Kind == model.Exclusive && len(l.Queue) == 0 {
				w.seen["not passed, full"]++
			}
		}
	}
	args := []string{"EVALSHA", w.script, strconv.Itoa(2 + len(call.Requests)), "holdfast.epoch", "holdfast.fence"}
	tail := []string{call.Constants, call.Known, micros, "PUBLISH", call.Inbox, ""}
	for _, q := range call.Requests {
		args = append(args, q.Key)
		tail = append(tail, q.Op, q.ID, strconv.FormatInt(q.TTL, 10))
	}
	answer, err := w.conn.Do(append(args, tail...)...)
	if err != nil {
		word, _, _ := strings.Cut(err.Error(), " ")
		return []string{word}
	}
	return strs(answer)
}

// clean leaves out the text of errors.
func clean(got []string) []string {
	out := slices.Clone(got)
	k := 1
	for word := range strings.SplitSeq(got[0], " ") {
		if !hasPayload(word) || strings.HasPrefix(got[0], "!constants") {
			continue
		}
		if word == "!" && k < len(out) {
			out[k] = ""
		}
		k++
	}
	return out
}

func replyOf(r model.Reply) []string {
	if r.Refused != "" {
		word, rest, both := strings.Cut(r.Refused, " ")
		if both {
			return []string{word, rest}
		}
		return []string{word}
	}
	first := strings.Join(r.Words, " ")
	if r.All != "" {
		first = "+" + r.All
	}
	if r.Term != "" {
		first = "@" + r.Term + " " + first
	}
	return append([]string{first}, r.Payloads...)
}

func strs(reply any) []string {
	list, _ := reply.([]any)
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = fmt.Sprint(v)
	}
	return out
}

// describe is dump of the mirror.
func (w *twin) describe() []string {
	m := &w.mirror
	out := make([]string, 0, 8)
	for _, name := range w.names {
		out = append(out, m.Describe(name))
	}
	epoch := ""
	if m.Epoch.Set {
		epoch = fmt.Sprintf("v1 %s %d %s", m.Epoch.Term, m.Epoch.Start, m.Epoch.Constants)
	}
	out = append(out, strconv.FormatInt(m.Counter, 10), epoch)
	for _, p := range m.Published {
		out = append(out, fmt.Sprintf("%s %s %d %d %d %s", p.Inbox, p.Token, p.Fence, p.Span, p.TTL, p.Key))
	}
	return out
}

// TestTheMirrorIsTheScripts: the model checker's server does what the scripts do, word by
// word and key by key.
func TestTheMirrorIsTheScripts(t *testing.T) {
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
	w := newTwin(t, seed)
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
		"push", "passed", "not passed", "not passed, full", "READONLY", "x +", "x h", "x w", "x n", "X !", "X +", "X q", "X w", "X n", "S +", "S q", "U +", "P +", "P q", "P l",
		"e =", "e -", "e w", "e n", "r =", "r -", "c =", "c -", "d =", "d -", "b b", "b s", "b -", "b w", "G +",
	} {
		if w.seen[what] == 0 {
			t.Errorf("never answered in %d steps: %q", steps, what)
		}
	}
}
