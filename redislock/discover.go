package redislock

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/redis/go-redis/v9"
)

// server is what a server says of itself. What it does not tell this user is empty.
type server struct {
	flavour string // "redis" or "valkey", or what else it calls itself
	version string
	mode    string            // "standalone", "sentinel" or "cluster"
	role    string            // "master" or "replica"
	info    map[string]string // of INFO
	epoch   *epoch            // nil where there is none
}

// survey asks a server what it is, in one round trip. Commands that it refuses are passed
// over: the error is that of the exchange. epochKey may be empty.
func survey(ctx context.Context, node redis.Cmdable, epochKey string) (*server, error) {
	pipe := node.Pipeline()
	hello, info := pipe.Do(ctx, "hello"), pipe.Info(ctx)
	var stored *redis.StringCmd
	if epochKey != "" {
		stored = pipe.Get(ctx, epochKey)
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	var refused redis.Error
	for _, err := range []error{hello.Err(), info.Err()} {
		if err != nil && !errors.As(err, &refused) {
			return nil, err
		}
	}
	s := &server{info: fieldsOf(info.Val())}
	said := pairsOf(hello.Val())
	s.flavour, s.version, s.mode, s.role = said["server"], said["version"], said["mode"], said["role"]
	s.complete()
	if stored != nil && stored.Err() == nil {
		s.epoch = parseEpoch(stored.Val())
	}
	return s, nil
}

// complete takes from INFO what HELLO did not say, or says more exactly.
func (s *server) complete() {
	first := func(keys ...string) string {
		for _, k := range keys {
			if v := s.info[k]; v != "" {
				return v
			}
		}
		return ""
	}
	if v := s.info["valkey_version"]; v != "" { // its redis_version is one that it is compatible with
		s.flavour, s.version = "valkey", v
	}
	if s.version == "" {
		s.version = s.info["redis_version"]
	}
	if s.flavour == "" && s.version != "" {
		s.flavour = "redis"
	}
	if s.mode == "" {
		s.mode = first("redis_mode", "server_mode")
	}
	if s.role == "" {
		s.role = s.info["role"]
	}
	if s.role == "slave" {
		s.role = "replica"
	}
}

// name is flavour and version, for people.
func (s *server) name() string {
	flavour := s.flavour
	switch flavour {
	case "redis":
		flavour = "Redis"
	case "valkey":
		flavour = "Valkey"
	}
	return strings.TrimSpace(flavour + " " + s.version)
}

// atLeast reports whether a Redis is of that version or later; every Valkey is, and so is
// what does not say its version.
func (s *server) atLeast(major, minor int) bool {
	if s.flavour == "valkey" || s.version == "" {
		return true
	}
	a, rest, _ := strings.Cut(s.version, ".")
	b, _, _ := strings.Cut(rest, ".")
	x, err1 := strconv.Atoi(a)
	y, err2 := strconv.Atoi(b)
	return err1 != nil || err2 != nil || x > major || x == major && y >= minor
}

// replicas is how many replicas are connected to a master, -1 where that is not known.
func (s *server) replicas() int {
	n, err := strconv.Atoi(s.info["connected_slaves"])
	if err != nil || s.role != "master" {
		return -1
	}
	return n
}

// fieldsOf returns the fields of an INFO reply.
func fieldsOf(text string) map[string]string {
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[k] = v
		}
	}
	return fields
}

// pairsOf returns the texts of a reply that is a map, which older protocols have as a list.
func pairsOf(reply any) map[string]string {
	fields := make(map[string]string)
	switch r := reply.(type) {
	case map[any]any:
		for k, v := range r {
			fields[fmt.Sprint(k)] = fmt.Sprint(v)
		}
	case []any:
		for i := 0; i+1 < len(r); i += 2 {
			fields[fmt.Sprint(r[i])] = fmt.Sprint(r[i+1])
		}
	}
	return fields
}

// epoch is what the gate keeps, see lua/gate.lua.
type epoch struct {
	term      string
	start     time.Time
	constants string
}

// parseEpoch returns nil for what the gate would not take for an epoch either.
func parseEpoch(value string) *epoch {
	parts := strings.SplitN(value, " ", 4)
	if len(parts) != 4 || parts[0] != "v1" {
		return nil
	}
	ms, err := strconv.ParseInt(parts[2], 10, 64)
	if err != nil {
		return nil
	}
	return &epoch{term: parts[1], start: time.UnixMilli(ms), constants: parts[3]}
}

// objection is why locks on a server would not work, or not as safely as they say.
type objection struct {
	kind         driver.Kind
	subject      string
	text, remedy string
	err          error // instead of text and remedy
}

func (o objection) error() error {
	if o.err != nil {
		return o.err
	}
	return fmt.Errorf("%s: %s", o.text, o.remedy)
}

// discover finds out what the servers are, and refuses those that cannot do what the engine
// says. What they do not tell is no reason to: doctor says what is missing.
func (e *Engine) discover(ctx context.Context) error {
	if e.cluster != nil {
		return e.discoverCluster(ctx)
	}
	s, err := survey(ctx, e.only.node, e.single.epoch)
	if err != nil {
		return e.unreachable(ctx, err)
	}
	return refusal(e.objections(s))
}

// discoverCluster looks at each master. One that does not answer is passed over: the others
// go on without it.
func (e *Engine) discoverCluster(ctx context.Context) error {
	var all []objection
	err := e.masters(ctx, func(node *redis.Client) error {
		_ = e.combinerOf(node).greet() // it is asked again when it is needed
		if s, err := survey(ctx, node, ""); err == nil {
			for _, o := range e.objections(s) {
				o.text = node.Options().Addr + ": " + o.text
				all = append(all, o)
			}
		}
		return nil
	})
	if err != nil {
		return e.unreachable(ctx, err)
	}
	return refusal(all)
}

// refusal makes one error of all objections. Its kind is that of the first.
func refusal(all []objection) error {
	if len(all) == 0 {
		return nil
	}
	var errs []error
	for _, o := range all {
		errs = append(errs, o.error())
	}
	return driver.Fail(all[0].kind, errors.Join(errs...))
}

// objections returns what is wrong with a server that requests are sent to.
func (e *Engine) objections(s *server) []objection {
	var all []objection
	if !s.atLeast(6, 2) {
		all = append(all, objection{kind: driver.Unsupported, subject: "version",
			text: s.name() + " is too old", remedy: "upgrade to Redis 6.2 or later, or to Valkey"})
	}
	if o, bad := e.modeObjection(s); bad {
		return append(all, o) // the rest would follow from it
	}
	if o, bad := e.roleObjection(s); bad {
		return append(all, o)
	}
	if o, bad := e.sizeObjection(s.replicas()); bad {
		all = append(all, o)
	}
	if s.epoch != nil && e.constants != "" && s.epoch.constants != e.constants {
		all = append(all, objection{kind: driver.Invalid, subject: "epoch",
			err: &constantsError{ours: e.constants, theirs: s.epoch.constants}})
	}
	return all
}

// modeObjection is about a server of another kind than the client is for. Whom Sentinels name
// is not looked at: they watch nothing else than masters.
func (e *Engine) modeObjection(s *server) (objection, bool) {
	kind := ""
	switch {
	case e.sentinel():
		return objection{}, false
	case e.cluster != nil:
		kind = "cluster"
	}
	text, remedy := misfit(kind, e.scheme(), e.caps.Instance, s.mode)
	return objection{kind: driver.Invalid, subject: "mode", text: text, remedy: remedy}, text != ""
}

// sentinel reports whether the server is one that Sentinels name.
func (e *Engine) sentinel() bool { return e.caps.Instance == behindSentinel }

// misfit says what is wrong, and what to do, when the URL is for a server of one kind and
// one of another mode answers at addr. kind is that of options.
func misfit(kind, scheme, addr, mode string) (text, remedy string) {
	is := map[string]string{
		"standalone": addr + " is a server on its own",
		"sentinel":   addr + " is a Sentinel, which holds no data",
		"cluster":    addr + " is a node of a Cluster",
	}[mode]
	fits := map[string]string{"": "standalone", "sentinel": "sentinel", "cluster": "cluster"}[kind]
	if is == "" || mode == fits {
		return "", ""
	}
	return is, "use " + map[string]string{
		"standalone": scheme + "://" + addr,
		"sentinel":   scheme + "+sentinel://" + addr + "/master-name",
		"cluster":    scheme + "+cluster://" + addr,
	}[mode]
}

// scheme is how URLs for the deployment begin.
func (e *Engine) scheme() string {
	if e.opened != nil && e.opened.tls != nil {
		return "rediss"
	}
	return "redis"
}

func (e *Engine) roleObjection(s *server) (objection, bool) {
	if s.role != "replica" {
		return objection{}, false
	}
	if e.sentinel() || e.cluster != nil { // the other side knows its master in a moment
		return objection{kind: driver.Unavailable, subject: "role", err: errNotMaster}, true
	}
	master := ""
	if host := s.info["master_host"]; host != "" {
		master = " of " + host + ":" + s.info["master_port"]
	}
	return objection{kind: driver.Invalid, subject: "role",
		text:   e.caps.Instance + " is a replica" + master + ", and locks have to be taken on the master",
		remedy: "name the master in the URL, or the Sentinels, who know it: " + e.scheme() + "+sentinel://host:26379/master-name"}, true
}

// sizeObjection is about replicas that nobody counted on: the acknowledgements that the gate
// asks for are then no majority, and an isolated master could find enough of them on its side.
func (e *Engine) sizeObjection(replicas int) (objection, bool) {
	k := e.cfg.DataNodes / 2
	if e.cfg.Safety != PartitionSafe || replicas+1 <= 2*k+1 {
		return objection{}, false
	}
	remedy := fmt.Sprintf("set DataNodes (data-nodes in the URL) to %d for all clients", replicas+1)
	if replicas+1 > MaxDataNodes {
		remedy = "take replicas away, or use CrashSafe (failover-grace=crash in the URL) for all clients"
	}
	return objection{kind: driver.Invalid, subject: "data nodes",
		text: fmt.Sprintf("Config.DataNodes is %d, but there are %d data nodes, the master and %d replicas: %d that acknowledge beside the master are no majority",
			e.cfg.DataNodes, replicas+1, replicas, k),
		remedy: remedy}, true
}

// probe is what was found at one address.
type probe struct {
	addr    string
	server  *server             // nil when there was no answer
	watched []map[string]string // what a Sentinel says of each master that it watches
	err     error
}

// probes asks all addresses of the URL at once, each by a plain connection.
func (o *options) probes(ctx context.Context) []probe {
	all := make([]probe, len(o.addrs))
	var group sync.WaitGroup
	for i, addr := range o.addrs {
		group.Go(func() { all[i] = o.probe(ctx, addr) })
	}
	group.Wait()
	return all
}

func (o *options) probe(ctx context.Context, addr string) probe {
	node := o.plain(addr)
	defer node.Close()
	p := probe{addr: addr}
	if p.server, p.err = survey(ctx, node, ""); p.err != nil || p.server.mode != "sentinel" {
		return p
	}
	p.watched, p.err = watchedBy(ctx, node)
	return p
}

// plain returns a client for one of the addresses of the URL alone.
func (o *options) plain(addr string) *redis.Client {
	user, password := o.user, o.password
	if o.kind == "sentinel" {
		user, password = o.sentinelUser, o.sentinelPassword
	}
	return redis.NewClient(&redis.Options{
		Addr: addr, Username: user, Password: password, TLSConfig: o.tls, PoolSize: 1,
		MaxRetries: -1, ContextTimeoutEnabled: true,
		DialTimeout: o.timeout, ReadTimeout: o.timeout, WriteTimeout: o.timeout,
	})
}

// watchedBy returns what a Sentinel says of each master that it watches.
func watchedBy(ctx context.Context, sentinel *redis.Client) ([]map[string]string, error) {
	reply, err := sentinel.Do(ctx, "SENTINEL", "MASTERS").Slice()
	masters := make([]map[string]string, 0, len(reply))
	for _, m := range reply {
		masters = append(masters, pairsOf(m))
	}
	return masters, err
}

// mistaken says what is wrong with the URL when the deployment could not be reached through
// it, or nil if that is not it.
func (o *options) mistaken(ctx context.Context, scheme string, failure error) error {
	var reply redis.Error
	if o.kind == "" && !errors.As(failure, &reply) {
		return nil // nothing answered: asking again will not tell why
	}
	var known []string
	answered := false
	for _, p := range o.probes(ctx) {
		if p.server == nil {
			continue
		}
		if text, remedy := misfit(o.kind, scheme, p.addr, p.server.mode); text != "" {
			return driver.Failf(driver.Invalid, "URL: %s: %s", text, remedy)
		}
		answered = answered || p.err == nil && p.server.mode == "sentinel"
		for _, m := range p.watched {
			known = append(known, m["name"])
		}
	}
	if o.kind != "sentinel" || !answered {
		return nil
	}
	for _, name := range known {
		if name == o.master {
			return nil
		}
	}
	return driver.Failf(driver.Invalid, "URL: the Sentinels know no master %.64q: write the name of one that they watch behind the hosts, %s", o.master, nameList(known))
}

// nameList quotes names, each once, for a message.
func nameList(names []string) string {
	var quoted []string
	seen := make(map[string]bool)
	for _, n := range names {
		if !seen[n] && len(quoted) < 10 {
			quoted = append(quoted, fmt.Sprintf("%.64q", n))
		}
		seen[n] = true
	}
	if len(quoted) == 0 {
		return "of which they name none"
	}
	return "which are: " + strings.Join(quoted, ", ")
}
