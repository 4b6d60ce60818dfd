package redislock

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/redis/go-redis/v9"
)

// exam is one call of Diagnose.
type exam struct {
	driver.Diagnosis
	e      *Engine
	ttl    time.Duration
	prefix string // of names and subjects: the node, in a Cluster
}

func (x *exam) find(level driver.Level, subject, remedy, format string, args ...any) {
	x.Find(level, x.prefix+subject, remedy, format, args...)
}

func (x *exam) fact(name, format string, args ...any) { x.Fact(x.prefix+name, format, args...) }

// Diagnose implements driver.Diagnoser. Commands of the scripts are tried on keys of its own,
// which are gone afterwards; nothing else is written.
func (e *Engine) Diagnose(ctx context.Context, ttl time.Duration) (driver.Diagnosis, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Diagnosis{}, err
	}
	defer e.leave()
	x := &exam{e: e, ttl: ttl}
	nodes := 0
	err := e.masters(ctx, func(node *redis.Client) error {
		nodes++
		if e.cluster != nil {
			x.prefix = node.Options().Addr + " "
		}
		err := x.node(ctx, node)
		if err != nil && e.cluster != nil {
			x.find(driver.LevelProblem, "connection", "see whether the node runs", "locks in its slots cannot be had: %v", err)
			return ctx.Err()
		}
		return err
	})
	x.prefix = ""
	if err != nil && e.sentinel() && ctx.Err() == nil {
		x.find(driver.LevelProblem, "connection", "see what the Sentinels say", "the master does not answer: %v", err)
	} else if err != nil {
		return driver.Diagnosis{}, e.classify(err)
	}
	switch {
	case e.cluster != nil:
		x.fact("topology", "Cluster of %d masters", nodes)
	case e.sentinel():
		x.sentinels(ctx)
	default:
		x.fact("topology", "a server on its own")
	}
	x.newcomers()
	x.safety()
	return x.Diagnosis, nil
}

// node looks at one master. The error is that of a connection.
func (x *exam) node(ctx context.Context, node *redis.Client) error {
	epochKey := x.e.single.epoch
	if x.e.cluster != nil {
		epochKey = ""
	}
	s, err := survey(ctx, node, epochKey)
	if err != nil {
		return err
	}
	x.identity(s)
	settings := config(ctx, node)
	x.replicas(s, settings)
	x.persistence(s, settings)
	x.eviction(s, settings)
	x.nodeTimeout(settings)
	if err := x.permissions(ctx, node); err != nil {
		return err
	}
	x.latency(ctx, node)
	x.clock(ctx, node)
	if x.e.cluster == nil {
		x.epoch(s)
	}
	return nil
}

// identity reports what the server is, and what is wrong with that.
func (x *exam) identity(s *server) {
	if s.version == "" {
		x.find(driver.LevelNote, "server", "allow +hello or +info", "it may not be asked for its version")
	} else {
		x.fact("server", "%s, %s", s.name(), s.mode)
		if s.flavour != "redis" && s.flavour != "valkey" {
			x.find(driver.LevelWarning, "server", "use Redis or Valkey", "%s is neither Redis nor Valkey: holdfast is not tested with it", s.name())
		}
	}
	if s.role != "" {
		x.fact("role", "%s", s.role)
	}
	all := x.e.objections(s)
	for _, o := range all {
		if o.err != nil {
			o.text = o.err.Error()
		}
		x.find(driver.LevelProblem, o.subject, o.remedy, "%s", o.text)
	}
	if len(all) == 0 && s.version != "" {
		x.find(driver.LevelOK, "server", "", "%s is one that holdfast runs on", s.name())
	}
}

// config returns the settings of a server that this user may read. Each is asked for by
// itself: servers before 7.0 take one name only.
func config(ctx context.Context, node *redis.Client) map[string]string {
	names := []string{"save", "appendonly", "appendfsync", "maxmemory-policy", "min-replicas-to-write", "cluster-node-timeout"}
	pipe := node.Pipeline()
	calls := make([]*redis.MapStringStringCmd, len(names))
	for i, name := range names {
		calls[i] = pipe.ConfigGet(ctx, name)
	}
	_, _ = pipe.Exec(ctx) // what is refused is not known
	settings := make(map[string]string)
	for i, name := range names {
		if v, ok := calls[i].Val()[name]; ok && calls[i].Err() == nil {
			settings[name] = v
		}
	}
	return settings
}

// replica is what a master says of one of its replicas.
type replica struct {
	addr, state string
	offset, lag int
}

func replicasOf(s *server) []replica {
	var all []replica
	for i := 0; ; i++ {
		line, ok := s.info["slave"+strconv.Itoa(i)]
		if !ok {
			return all
		}
		fields := make(map[string]string)
		for part := range strings.SplitSeq(line, ",") {
			k, v, _ := strings.Cut(part, "=")
			fields[k] = v
		}
		r := replica{addr: fields["ip"] + ":" + fields["port"], state: fields["state"]}
		r.offset, _ = strconv.Atoi(fields["offset"])
		r.lag, _ = strconv.Atoi(fields["lag"])
		all = append(all, r)
	}
}

// replicas reports who follows the master, as far as the server tells: see lua/gate.lua.
func (x *exam) replicas(s *server, settings map[string]string) {
	if s.replicas() < 0 {
		if s.role != "replica" {
			x.find(driver.LevelNote, "replicas", "allow +info", "it may not be asked for its replicas")
		}
		return
	}
	maxLag := int(x.e.cfg.MaxLag / time.Second)
	began, _ := strconv.Atoi(s.info["second_repl_offset"])
	live := 0
	var each []string
	for _, r := range replicasOf(s) {
		if r.state == "online" && r.lag <= maxLag && r.offset >= began {
			live++
		}
		each = append(each, fmt.Sprintf("%s %s, lag %d s", r.addr, r.state, r.lag))
	}
	n := s.replicas()
	x.fact("replicas", "%s", strings.Join(append([]string{strconv.Itoa(n)}, each...), "; "))
	x.quorum(n, live)
	x.minReplicas(n, settings)
}

// quorum says what that many replicas, so many of them alive, mean for the level of safety.
func (x *exam) quorum(n, live int) {
	c := x.e.cfg
	k := c.DataNodes / 2
	switch {
	case c.Safety == SingleProcess && n > 0:
		x.find(driver.LevelWarning, "replicas", fmt.Sprintf("Safety PartitionSafe (failover-grace=partition&data-nodes=%d in the URL) for all clients, or CrashSafe", max(n+1, 2)),
			"%d follow, but Safety is SingleProcess: when one of them takes over, locks that it has not heard of are granted a second time", n)
	case c.Safety == SingleProcess:
		x.find(driver.LevelOK, "replicas", "", "none, as SingleProcess assumes")
	case c.Safety == CrashSafe && n == 0:
		x.find(driver.LevelOK, "replicas", "", "none: when the server is down locks are, until it is back and its grace is over")
	case c.Safety == CrashSafe:
		x.find(driver.LevelNote, "replicas", fmt.Sprintf("PartitionSafe (failover-grace=partition&data-nodes=%d) closes that, for all clients", n+1),
			"%d follow, %d up to date; a master that is cut off and lives on grants locks beside the one that takes over", n, live)
	case live < k:
		x.find(driver.LevelProblem, "replicas", "bring replicas up, or look at the link to them",
			"%d of %d acknowledge within %v, and %d have to: nothing is granted, and leases end", live, n, c.MaxLag, k)
	case live == k && live < c.DataNodes-1:
		x.find(driver.LevelWarning, "replicas", "bring the missing replicas up",
			"%d of the %d that DataNodes counts on acknowledge: if one more fails, nothing is granted", live, c.DataNodes-1)
	case live == k:
		x.find(driver.LevelNote, "replicas", "", "%d acknowledge, as many as have to: if one fails, nothing is granted", live)
	default:
		x.find(driver.LevelOK, "replicas", "", "%d acknowledge, %d have to", live, k)
	}
}

func (x *exam) minReplicas(n int, settings map[string]string) {
	value, known := settings["min-replicas-to-write"]
	least, err := strconv.Atoi(value)
	if !known || err != nil {
		return
	}
	x.fact("min-replicas-to-write", "%d", least)
	switch {
	case least > n:
		x.find(driver.LevelProblem, "min-replicas-to-write", "bring replicas up, or lower it",
			"it is %d and %d replicas follow: the server refuses writes", least, n)
	case least == 0 && n > 0 && x.e.cfg.Safety == CrashSafe:
		x.find(driver.LevelNote, "min-replicas-to-write", "set it to 1",
			"it is 0: a master that is cut off takes writes for as long as it lives; with 1 it stops after about ten seconds")
	}
}

// persistence reports what a restart forgets.
func (x *exam) persistence(s *server, settings map[string]string) {
	aof := settings["appendonly"] == "yes" || s.info["aof_enabled"] == "1"
	fsync, fsyncKnown := settings["appendfsync"]
	save, saveKnown := settings["save"]
	if _, known := settings["appendonly"]; !known && s.info["aof_enabled"] == "" {
		x.find(driver.LevelNote, "persistence", "allow +info", "it may not be asked what it keeps over a restart")
		return
	}
	kept, forgets := "nothing is written to disk", "everything"
	switch {
	case aof && fsync == "always":
		x.fact("persistence", "append-only file, synced before each answer")
		x.find(driver.LevelOK, "persistence", "", "a restart forgets nothing that was granted, after a power loss either")
		return
	case aof && fsyncKnown:
		kept, forgets = "append-only file, appendfsync "+fsync, "after a power loss the last second or more"
	case aof:
		kept, forgets = "append-only file", "after a power loss perhaps the last second"
	case saveKnown && save != "":
		kept, forgets = "snapshots, save "+save, "what came after the last snapshot"
	case !saveKnown:
		kept, forgets = "no append-only file, perhaps snapshots", "what came after the last snapshot, if there is one"
	}
	x.fact("persistence", "%s", kept)
	const fences = "fences then go on from the clients' clocks, and grow if those are right"
	if x.e.cfg.Safety != SingleProcess {
		x.find(driver.LevelNote, "persistence", "", "%s: a restart forgets %s; the grace keeps locks apart all the same, and %s", kept, forgets, fences)
		return
	}
	x.find(driver.LevelWarning, "persistence", "Safety CrashSafe (failover-grace=crash in the URL) for all clients, or appendonly yes with appendfsync always",
		"%s: a restart forgets %s, and grants those locks a second time; %s", kept, forgets, fences)
}

// eviction reports whether the server may throw locks away for want of memory.
func (x *exam) eviction(s *server, settings map[string]string) {
	policy := settings["maxmemory-policy"]
	if policy == "" {
		policy = s.info["maxmemory_policy"]
	}
	limit := s.info["maxmemory"]
	switch {
	case policy == "":
		x.find(driver.LevelNote, "eviction", "allow +info", "it may not be asked for maxmemory-policy, which has to be noeviction")
		return
	case policy == "noeviction":
		x.find(driver.LevelOK, "eviction", "", "maxmemory-policy is noeviction: locks are never thrown away")
	case limit == "0":
		x.find(driver.LevelWarning, "eviction", "set maxmemory-policy to noeviction",
			"maxmemory-policy is %s, and as soon as maxmemory is set locks are thrown away while they are held", policy)
	default:
		x.find(driver.LevelWarning, "eviction", "set maxmemory-policy to noeviction, or give locks a server of their own",
			"maxmemory-policy is %s: when memory runs out locks are thrown away while they are held", policy)
	}
	x.fact("eviction", "maxmemory-policy %s, maxmemory %s", policy, s.info["maxmemory"])
}

// samples is how many calls the latency is the median of.
const samples = 9

// latency times calls one after the other.
func (x *exam) latency(ctx context.Context, node *redis.Client) {
	ping, err := median(func() error { return node.Ping(ctx).Err() })
	if err != nil {
		return // what is wrong shows among the permissions
	}
	script, err := median(func() error { return inspectScript().Run(ctx, node, nil, "").Err() })
	if err != nil {
		x.fact("latency", "PING %v", ping)
		return
	}
	x.fact("latency", "PING %v, script %v, the medians of %d", ping, script, samples)
	if limit := x.e.cfg.Timeout; script > limit/4 {
		x.find(driver.LevelWarning, "latency", "raise Config.Timeout (timeout in the URL), or look for what slows the server down",
			"a call takes %v, and is given up after %v", script, limit)
		return
	}
	x.find(driver.LevelOK, "latency", "", "a call takes %v", script)
}

func median(call func() error) (time.Duration, error) {
	times := make([]time.Duration, samples)
	for i := range times {
		began := time.Now()
		if err := call(); err != nil {
			return 0, err
		}
		times[i] = time.Since(began)
	}
	slices.Sort(times)
	return times[samples/2].Round(10 * time.Microsecond), nil
}

// clock compares the server's clock with ours. Leases do not depend on either; the order of
// fences does once the counter is lost, and so do the times that people are shown.
func (x *exam) clock(ctx context.Context, node *redis.Client) {
	sent := x.e.wall()
	at, err := node.Time(ctx).Result()
	if err != nil {
		return
	}
	travel := x.e.wall().Sub(sent)
	ahead := sent.Add(travel / 2).Sub(at)
	x.fact("clock", "this machine's is %v ahead of the server's, give or take %v", ahead.Round(time.Millisecond), (travel / 2).Round(time.Microsecond))
	switch off := ahead.Abs() - travel/2; {
	case off > 10*time.Second:
		x.find(driver.LevelWarning, "clock", "synchronize the clocks of clients and servers",
			"this machine and the server are %v apart: should the server lose its data, fences go on from the clients' clocks and may go back", ahead.Abs().Round(time.Millisecond))
	case off > time.Second:
		x.find(driver.LevelNote, "clock", "synchronize the clocks of clients and servers",
			"this machine and the server are %v apart", ahead.Abs().Round(time.Millisecond))
	default:
		x.find(driver.LevelOK, "clock", "", "this machine and the server agree")
	}
}

// epoch reports whether a grace is under way, or will be.
func (x *exam) epoch(s *server) {
	gated := x.e.constants != ""
	switch {
	case s.epoch != nil && !gated:
		x.find(driver.LevelWarning, "epoch", "give all clients the same Safety; where no client waits any more, delete "+x.e.single.epoch,
			"other clients use this server with a failover grace (%s), which this one does not keep: it may take what they hold", s.epoch.constants)
	case !gated:
	case s.epoch == nil:
		x.find(driver.LevelNote, "epoch", "if no lock was ever taken here, say so: holdfast doctor --init, or Init in a program",
			"there is none yet: the first lock waits %v, as after a failover", about(x.e.cfg.grace()))
	case s.info["master_replid"] != "" && s.epoch.term != s.info["master_replid"]:
		x.find(driver.LevelNote, "epoch", "", "the master has changed since the last lock, or was restarted: the next one waits %v", about(x.e.cfg.grace()))
	default:
		if left := x.e.cfg.grace() - x.e.wall().Sub(s.epoch.start); left > 0 {
			x.find(driver.LevelNote, "epoch", "", "the master is new: new locks are granted in about %v", about(left))
			return
		}
		x.find(driver.LevelOK, "epoch", "", "locks are granted since %s", s.epoch.start.Add(x.e.cfg.grace()).UTC().Format(time.RFC3339))
	}
}

// about rounds what nobody wants to read in microseconds.
func about(d time.Duration) time.Duration {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}

// safety ends the diagnosis with what it comes to.
func (x *exam) safety() {
	c := x.e.cfg
	x.fact("safety", "%s", c.Safety)
	worst := x.Worst()
	text := safetyText[c.Safety]
	switch {
	case worst == driver.LevelProblem:
		x.find(driver.LevelProblem, "safety", "deal with the problems above", "%s: not as long as there are problems", c.Safety)
	case worst == driver.LevelWarning:
		x.find(driver.LevelNote, "safety", "", "%s. See the warnings for what comes on top", text)
	default:
		x.find(driver.LevelOK, "safety", "", "%s", text)
	}
}
