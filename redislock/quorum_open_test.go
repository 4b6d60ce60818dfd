package redislock_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

// TestQuorumURL: one URL for all nodes with what they have in common, or one for each.
func TestQuorumURL(t *testing.T) {
	t.Parallel()
	var plain, mixed []string
	servers := nodes(t, 2, testserver.RedisOptions{Password: "hunter2"})
	servers = append(servers, testserver.Redis(t, testserver.RedisOptions{Password: "hunter2",
		Users: []string{"app on >secret ~* &* +@all"}}))
	for i, s := range servers {
		plain = append(plain, s.Addr())
		mixed = append(mixed, []string{"redis://:hunter2@", "redis://default:hunter2@", "redis://app:secret@"}[i]+
			s.Addr()+[]string{"/1", "/1?timeout=15s", "/1?pool-size=5"}[i])
	}
	const query = "/1?prefix=locks:&max-ttl=5s&group=one&timeout=16s&pool-size=4"
	ctx, cancel := bounded()
	defer cancel()
	hf, err := holdfast.Open(ctx, "redlock://:hunter2@"+strings.Join(plain, ",")+query, holdfast.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer hf.Close()
	if caps := hf.Capabilities(); caps.MaxTTL != 5*time.Second || caps.DefaultTTL != 5*time.Second || strings.Contains(caps.Instance, "hunter2") {
		t.Errorf("%+v", caps)
	}
	if err := hf.Init(ctx); err != nil {
		t.Fatal(err)
	}
	q, err := redislock.OpenQuorum(ctx, mixed, redislock.QuorumConfig{Prefix: "locks:", MaxTTL: 5 * time.Second, Group: "one"})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	l, err := hf.Mutex("a").TryLock(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Acquire(ctx, ask("a", time.Second)); !isKind(err, driver.Held) {
		t.Errorf("the same lock by other URLs: %v", err)
	}
	if err := l.Unlock(); err != nil {
		t.Error(err)
	}
	// Who was told something else keeps out, and says why.
	for _, cfg := range []redislock.QuorumConfig{
		{Prefix: "locks:", MaxTTL: 6 * time.Second, Group: "one"}, {Prefix: "locks:", MaxTTL: 5 * time.Second},
	} {
		q, err := redislock.OpenQuorum(ctx, mixed, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		if _, err := q.Acquire(ctx, ask("a", time.Second)); !isKind(err, driver.Invalid) || !strings.Contains(err.Error(), "MaxTTL") {
			t.Errorf("other constants: %v", err)
		}
	}
}

func isKind(err error, kind driver.Kind) bool {
	got, _ := kindOf(err)
	return err != nil && got == kind
}

// TestQuorumBadInput: what cannot be right is refused before anything is sent, with the name of
// what is wrong, every violation, and no password.
func TestQuorumBadInput(t *testing.T) {
	t.Parallel()
	three := []string{"redis://h1", "redis://h2", "redis://h3"}
	for _, c := range []struct {
		urls []string
		cfg  redislock.QuorumConfig
		says []string
	}{
		{[]string{"redlock://h1,h2"}, redislock.QuorumConfig{}, []string{"2 nodes", "3 to 15"}},
		{[]string{"redlock://h1,h2,h2"}, redislock.QuorumConfig{}, []string{"nodes 2 and 3", "once"}},
		{[]string{"redlock://u:hunter2@h1,,h3"}, redislock.QuorumConfig{}, []string{"host is empty"}},
		{[]string{"redlock://u:hunter2@h1,h2,h3:99999"}, redislock.QuorumConfig{}, []string{"port"}},
		{[]string{"redlock://h1,h2,h3?data-nodes=3"}, redislock.QuorumConfig{}, []string{"pool-size", "no meaning"}},
		{[]string{"redlock://h1,h2,h3?nonsense=1"}, redislock.QuorumConfig{}, []string{"nonsense"}},
		{[]string{"redlock://h1,h2,h3?max-ttl=soon"}, redislock.QuorumConfig{}, []string{"max-ttl"}},
		{[]string{"redlock://h1,h2,h3?group=a%20b"}, redislock.QuorumConfig{}, []string{"Group"}},
		{[]string{"redlock://h1,h2,h3/x"}, redislock.QuorumConfig{}, []string{"database"}},
		{[]string{"redlock+tls://h1,h2,h3"}, redislock.QuorumConfig{}, []string{"redlocks"}},
		{[]string{"redlock://:hunter2@h1:x,h2,h3"}, redislock.QuorumConfig{}, []string{"cannot be read"}},
		{three, redislock.QuorumConfig{MaxTTL: time.Millisecond, Timeout: time.Hour}, []string{"MaxTTL", "Timeout"}},
		{three, redislock.QuorumConfig{Prefix: "p", RawKeys: true}, []string{"Prefix"}},
		{[]string{"redis://h1", "redis+cluster://h2", "http://h3"}, redislock.QuorumConfig{}, []string{"node 2", "node 3"}},
		{[]string{"redis://h1", "redis://h2?prefix=x", "redis://h3"}, redislock.QuorumConfig{}, []string{"node 2", "prefix"}},
		{[]string{"redis://h1", "redis://:hunter2@h2\x7f", "redis://h3,h4"}, redislock.QuorumConfig{}, []string{"node 2", "node 3"}},
	} {
		_, err := redislock.OpenQuorum(t.Context(), c.urls, c.cfg)
		if !isKind(err, driver.Invalid) {
			t.Errorf("%q %+v: %v, want invalid", c.urls, c.cfg, err)
			continue
		}
		for _, text := range c.says {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%q %+v: %q does not say %q", c.urls, c.cfg, err, text)
			}
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q shows the password", err)
		}
	}
	clients := []redis.UniversalClient{
		redis.NewClient(&redis.Options{Addr: "h1:1"}), nil,
		redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "m", SentinelAddrs: []string{"h2:1"}}),
		redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"h3:1"}}),
	}
	_, err := redislock.NewQuorum(clients, redislock.QuorumConfig{})
	for _, text := range []string{"node 2", "node 3 is behind Sentinel", "node 4"} {
		if !isKind(err, driver.Invalid) || !strings.Contains(err.Error(), text) {
			t.Errorf("%v does not say %q", err, text)
		}
	}
	for _, c := range clients {
		if c != nil {
			c.Close()
		}
	}
}

// TestQuorumOpenDown: a majority has to answer, and a minority need not.
func TestQuorumOpenDown(t *testing.T) {
	t.Parallel()
	servers := nodes(t, 3, testserver.RedisOptions{})
	url := "redlock://" + strings.Join(addrsOf(servers), ",") + "?timeout=3s"
	ctx, cancel := bounded()
	defer cancel()
	servers[1].Pause()
	q, err := redislock.OpenQuorum(ctx, []string{url}, redislock.QuorumConfig{})
	if err != nil {
		t.Fatalf("one of three is frozen: %v", err)
	}
	q.Close()
	servers[2].Kill()
	_, err = redislock.OpenQuorum(ctx, []string{url}, redislock.QuorumConfig{})
	var e *redislock.QuorumError
	if !isKind(err, driver.Unavailable) || !errors.As(err, &e) || e.Nodes[2].Status != redislock.NodeFailed {
		t.Fatalf("one is frozen and one is dead: %v", err)
	}
}

// TestQuorumUnsupported: there are no shared locks and no permits on a quorum, and no TTL that
// is longer than what nodes wait for.
func TestQuorumUnsupported(t *testing.T) {
	t.Parallel()
	q := quorumOn(t, []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}, redislock.QuorumConfig{MaxTTL: time.Second})
	defer q.Close()
	for _, mode := range []driver.Mode{driver.Shared, driver.Upgradeable, driver.Permits} {
		req := ask("a", time.Second)
		req.Mode, req.Weight, req.Limit = mode, 1, 2
		if _, err := q.Acquire(t.Context(), req); !isKind(err, driver.Unsupported) {
			t.Errorf("%v: %v", mode, err)
		}
	}
	if _, err := q.Acquire(t.Context(), ask("a", 2*time.Second)); !isKind(err, driver.Invalid) || !strings.Contains(err.Error(), "MaxTTL") {
		t.Errorf("a TTL beyond MaxTTL: %v", err)
	}
	raw := quorumOn(t, []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}, redislock.QuorumConfig{RawKeys: true})
	defer raw.Close()
	if _, err := raw.Acquire(t.Context(), ask("holdfast.node", time.Second)); !isKind(err, driver.Invalid) {
		t.Errorf("the name of a companion key: %v", err)
	}
}

// TestQuorumACL: a user with the rule that ACL returns can lock, wait, look and break.
func TestQuorumACL(t *testing.T) {
	t.Parallel()
	servers := nodes(t, 3, testserver.RedisOptions{})
	url := strings.Join(addrsOf(servers), ",")
	ctx, cancel := bounded()
	defer cancel()
	admin, err := redislock.OpenQuorum(ctx, []string{"redlock://" + url}, redislock.QuorumConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	for _, s := range servers {
		must(t, s, append(strings.Fields(admin.ACL("app")), ">hunter2")...)
		must(t, s, strings.Fields("ACL SETUSER poor on >hunter2 ~* &* +@all -info")...)
	}
	q, err := redislock.OpenQuorum(ctx, []string{"redlock://app:hunter2@" + url}, redislock.QuorumConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if err := q.Init(ctx); err != nil {
		t.Fatal(err)
	}
	first, second := ask("a", labTTL/2), ask("a", labTTL/2)
	second.Wait = true
	g, err := q.Acquire(ctx, first)
	if err != nil {
		t.Fatal(err)
	}
	granted := make(chan error, 1)
	go func() {
		_, err := q.Acquire(ctx, second)
		granted <- err
	}()
	comesTrue(t, "somebody waits", func() bool {
		info, err := q.Inspect(ctx, "a")
		return err == nil && info.Waiters == 1
	})
	if err := q.Release(ctx, first.Claim(g)); err != nil {
		t.Error(err)
	}
	if err := <-granted; err != nil {
		t.Error(err)
	}
	if all, err := q.List(ctx, "", 10); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
	if _, err := q.Break(ctx, driver.BreakRequest{Name: "a", Reason: "why"}); err != nil {
		t.Error(err)
	}
	d, err := q.Diagnose(ctx, time.Second)
	if err != nil || d.Worst() == driver.LevelProblem {
		t.Errorf("%+v, %v", d, err)
	}
	poor, err := redislock.OpenQuorum(ctx, []string{"redlock://poor:hunter2@" + url}, redislock.QuorumConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer poor.Close()
	if _, err := poor.Acquire(ctx, ask("b", time.Second)); !isKind(err, driver.Unavailable) || !strings.Contains(err.Error(), "+info") {
		t.Errorf("without the right to INFO: %v", err)
	}
}

// TestQuorumDiagnose: what is wrong with nodes is told, and what it comes to.
func TestQuorumDiagnose(t *testing.T) {
	h := newHouse(t)
	fresh := quorumOn(t, addrsOf(nodes(t, 3, testserver.RedisOptions{})), redislock.QuorumConfig{})
	defer fresh.Close()
	says(t, fresh, driver.LevelNote, "quorum", "the nodes are new")
	e := h.engine()
	defer e.Close()
	says(t, e, driver.LevelOK, "quorum", "5 of 5")
	h.servers[0].Kill()
	says(t, e, driver.LevelWarning, h.servers[0].Addr()+" node", "does not take part")
	says(t, e, driver.LevelOK, "quorum", "1 of them may fail")
	h.servers[3].Pause()
	says(t, e, driver.LevelWarning, "quorum", "if one more fails")
	h.servers[1].RestartEmpty()
	h.servers[2].RestartEmpty()
	says(t, e, driver.LevelProblem, "quorum", "do not answer")
	says(t, e, driver.LevelWarning, h.servers[1].Addr()+" node", "until it is healed")
	h.servers[0].RestartEmpty()
	says(t, e, driver.LevelProblem, "quorum", "until an operator")
	h.servers[3].Resume()
}

// says fails unless the engine's diagnosis comes to have such a finding.
func says(t *testing.T, e *redislock.Quorum, level driver.Level, subject, text string) {
	t.Helper()
	var d driver.Diagnosis
	comesTrue(t, subject+" "+text, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), labPatience)
		defer cancel()
		var err error
		if d, err = e.Diagnose(ctx, time.Second); err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(d.Findings, func(f driver.Finding) bool {
			return f.Level == level && f.Subject == subject && strings.Contains(f.Text, text)
		})
	})
}

// TestQuorumOneServerTwice: a server that is listed by two addresses is found out before the
// first lock, for it would vote twice.
func TestQuorumOneServerTwice(t *testing.T) {
	t.Parallel()
	servers := nodes(t, 2, testserver.RedisOptions{})
	twin := testserver.Proxy(t, servers[0].Addr()).Addr()
	q := quorumOn(t, append(addrsOf(servers), twin), redislock.QuorumConfig{})
	defer q.Close()
	ctx, cancel := bounded()
	defer cancel()
	_, acquire := q.Acquire(ctx, ask("name", time.Second))
	for what, err := range map[string]error{"Init": q.Init(ctx), "Heal": q.Heal(ctx), "Acquire": acquire} {
		if !isKind(err, driver.Invalid) || !strings.Contains(err.Error(), twin) || !strings.Contains(err.Error(), servers[0].Addr()) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestQuorumInitSpans: nodes that were never used give numbers for local hand-overs from the
// first lock on.
func TestQuorumInitSpans(t *testing.T) {
	h, _ := threeNodes(t)
	e := h.engine()
	defer e.Close()
	req := ask("name", labTTL)
	req.Span = 64
	if g, err := e.Acquire(h.patience(), req); err != nil || g.FenceSpan != req.Span {
		t.Errorf("%+v, %v", g, err)
	}
}
