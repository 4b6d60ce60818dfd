package redislock_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

// threeNodes is three servers whose leases outlive the test, and proxies before them.
func threeNodes(t *testing.T) (*house, []*testserver.TCPProxy) {
	t.Helper()
	t.Parallel()
	h := &house{T: t, servers: nodes(t, 3, testserver.RedisOptions{}), cfg: redislock.QuorumConfig{MaxTTL: labTTL, Group: "three"}}
	found(t, addrsOf(h.servers), h.cfg)
	var proxies []*testserver.TCPProxy
	for _, s := range h.servers {
		proxies = append(proxies, testserver.Proxy(t, s.Addr()))
	}
	return h, proxies
}

// behindProxies returns an engine that has used its connections, and is patient with them. The
// nodes know the scripts.
func (h *house) behindProxies(proxies []*testserver.TCPProxy) *redislock.Quorum {
	h.Helper()
	var clients []redis.UniversalClient
	for _, p := range proxies {
		c := redis.NewClient(&redis.Options{Addr: p.Addr(), ReadTimeout: labPatience / 2, DialerRetries: 1})
		h.Cleanup(func() { c.Close() })
		clients = append(clients, c)
	}
	e, err := redislock.NewQuorum(clients, h.cfg)
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { e.Close() })
	warm := h.take(e, ask("warm", labTTL))
	h.allHave("holdfast:warm", 1)
	if err := e.Renew(h.patience(), []driver.Claim{warm})[0]; err != nil {
		h.Fatal(err)
	}
	h.giveBack(e, warm)
	h.allHave("holdfast:warm", 0)
	// One that waits for an answer still would not be used, and a new one needs answers to begin:
	// the engine looks after the nodes at any time. So there are more of them than it needs at once.
	comesTrue(h.T, "connections are at rest, some for each node", func() bool {
		var all sync.WaitGroup
		for _, c := range clients {
			for range 4 {
				all.Go(func() { c.Do(h.patience(), "BLPOP", "nobody's", "0.05") })
			}
		}
		all.Wait()
		return !slices.ContainsFunc(clients, func(c redis.UniversalClient) bool {
			s := c.PoolStats()
			return s.IdleConns != s.TotalConns || s.IdleConns < 4
		})
	})
	return e
}

// take acquires for req and returns the claim.
func (h *house) take(e *redislock.Quorum, req driver.Request) driver.Claim {
	h.Helper()
	g, err := e.Acquire(h.patience(), req)
	if err != nil {
		h.Fatalf("acquire %q: %v", req.Name, err)
	}
	return req.Claim(g)
}

func (h *house) giveBack(e *redislock.Quorum, c driver.Claim) {
	h.Helper()
	if err := e.Release(h.patience(), c); err != nil {
		h.Fatalf("release %q: %v", c.Name, err)
	}
}

// allHave waits until the key is there at every node, or at none.
func (h *house) allHave(key string, there int64) {
	h.Helper()
	for _, s := range h.servers {
		comesTrue(h.T, key+" is there or gone", func() bool { return must(h.T, s, "EXISTS", key) == there })
	}
}

// mostHave waits until the key is there at a majority. The others may be asked by a connection
// that is not there yet, when answers are held back.
func (h *house) mostHave(key string) {
	h.Helper()
	comesTrue(h.T, "most nodes have "+key, func() bool {
		n := 0
		for _, s := range h.servers {
			if must(h.T, s, "EXISTS", key) == int64(1) {
				n++
			}
		}
		return 2*n > len(h.servers)
	})
}

// TestQuorumAttemptsDiffer: a request that is made again, with the token that it had, signs in
// another way: what is still under way of the first try must not give back what the second has.
func TestQuorumAttemptsDiffer(t *testing.T) {
	h, proxies := threeNodes(t)
	e := h.behindProxies(proxies)
	req := ask("name", labTTL)
	signed := func() string {
		c := h.take(e, req)
		defer h.giveBack(e, c)
		h.allHave("holdfast:name", 1)
		value, _ := must(t, h.servers[0], "GET", "holdfast:name").(string)
		id, _, _ := strings.Cut(value[strings.Index(value, " ")+1:], " ")
		return id
	}
	if a, b := signed(), signed(); a == b || len(a) != 22 || len(b) != 22 {
		t.Errorf("two tries have signed %q and %q", a, b)
	}
}

// TestQuorumWithdrawnWhileItWins: a waiting call whose token is released while the nodes grant it
// the lock does not return with the lock, and leaves nothing behind.
func TestQuorumWithdrawnWhileItWins(t *testing.T) {
	h, proxies := threeNodes(t)
	e := h.behindProxies(proxies)
	req := ask("name", labTTL)
	req.Wait = true
	for _, p := range proxies {
		p.FreezeDown()
	}
	ended := make(chan error, 1)
	go func() {
		_, err := e.Acquire(h.patience(), req)
		ended <- err
	}()
	h.mostHave("holdfast:name")
	h.giveBack(e, req.Claim(driver.Grant{Fence: 1, FenceSpan: 1}))
	for _, p := range proxies {
		p.Thaw()
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a request that was withdrawn has got the lock")
		}
	case <-time.After(labPatience):
		t.Fatal("the call does not end")
	}
	h.allHave("holdfast:name", 0)
}

// TestQuorumRepeatAfterHeal: a request that is repeated gets a grant though the nodes are in
// another epoch by now, which this engine has not heard of.
func TestQuorumRepeatAfterHeal(t *testing.T) {
	h, _ := threeNodes(t)
	e, other := h.engine(), h.engine()
	defer e.Close()
	defer other.Close()
	req := ask("name", labTTL)
	first := h.take(e, req)
	epoch := func(i int) string {
		value, _ := must(t, h.servers[i], "GET", "holdfast.node").(string)
		return strings.Fields(value)[2]
	}
	before := epoch(0)
	h.servers[2].RestartEmpty()
	comesTrue(t, "the nodes that remember are in another epoch", func() bool {
		other.Look(h.patience())
		return epoch(0) != before && epoch(0) == epoch(1)
	})
	var again driver.Grant
	comesTrue(t, "the request is granted again", func() bool { // not while nodes are being healed
		g, err := e.Acquire(h.patience(), req)
		if err != nil && !isKind(err, driver.Unavailable) {
			t.Fatalf("repeated: %v", err)
		}
		again = g
		return err == nil
	})
	if again.Fence <= first.Fence {
		t.Errorf("fence %d after %d", again.Fence, first.Fence)
	}
}

// TestQuorumRepeatUndecided: while it is not known whether the nodes have given a request that
// was repeated another fence, it holds the lock, and goes on to.
func TestQuorumRepeatUndecided(t *testing.T) {
	h, proxies := threeNodes(t)
	e := h.behindProxies(proxies)
	req := ask("name", labTTL)
	first := h.take(e, req)
	value := func() any { return must(t, h.servers[0], "GET", "holdfast:name") }
	before := value()
	for _, p := range proxies {
		p.FreezeDown()
	}
	ctx, cancel := context.WithCancel(h.patience())
	ended := make(chan error, 1)
	go func() {
		_, err := e.Acquire(ctx, req)
		ended <- err
	}()
	comesTrue(t, "a node has moved", func() bool { return value() != before })
	cancel()
	if err := <-ended; !isKind(err, driver.Unavailable) {
		t.Fatalf("repeated, and nothing answered: %v", err)
	}
	for _, p := range proxies {
		p.Thaw()
	}
	comesTrue(t, "the lease is renewed", func() bool {
		err := e.Renew(h.patience(), []driver.Claim{first})[0]
		if isKind(err, driver.Lost) {
			t.Fatalf("renewal after that: %v", err)
		}
		return err == nil
	})
	if again := h.take(e, req); again.Fence <= first.Fence {
		t.Errorf("fence %d after %d", again.Fence, first.Fence)
	}
}

// TestQuorumRepeatGone: a request that is repeated when what it held is gone is a new one.
func TestQuorumRepeatGone(t *testing.T) {
	h, _ := threeNodes(t)
	e := h.engine()
	defer e.Close()
	req := ask("name", labTTL)
	first := h.take(e, req)
	for _, s := range h.servers {
		must(t, s, "DEL", "holdfast:name")
	}
	if again := h.take(e, req); again.Fence <= first.Fence {
		t.Errorf("fence %d after %d", again.Fence, first.Fence)
	}
	h.allHave("holdfast:name", 1)
}

// TestQuorumRepeatClockAhead: a clock that is far ahead does not use up the fences, also where a
// request is repeated.
func TestQuorumRepeatClockAhead(t *testing.T) {
	h, _ := threeNodes(t)
	e := h.engine()
	defer e.Close()
	e.SetWall(func() time.Time { return time.Now().AddDate(150, 0, 0) })
	req := ask("name", labTTL)
	h.take(e, req)
	if again := h.take(e, req); again.Fence > time.Now().Add(2*time.Hour).UnixMicro() {
		t.Errorf("fence %d", again.Fence)
	}
}

// TestQuorumOwed: where the nodes have granted, and neither the answers nor the release got
// through, the outcome is not known, and a later release of the token frees the lock.
func TestQuorumOwed(t *testing.T) {
	h, proxies := threeNodes(t)
	e := h.behindProxies(proxies)
	req := ask("name", labTTL)
	for _, p := range proxies {
		p.FreezeDown()
	}
	ended := make(chan error, 1)
	go func() {
		_, err := e.Acquire(h.patience(), req)
		ended <- err
	}()
	h.mostHave("holdfast:name")
	for _, p := range proxies {
		p.Refuse()
	}
	for _, p := range proxies {
		p.Cut()
	}
	if err := <-ended; !isKind(err, driver.Unavailable) {
		t.Fatalf("no answer came: %v", err)
	} else if _, outcome := kindOf(err); outcome != driver.Unknown {
		t.Errorf("the outcome is %v", outcome)
	}
	h.mostHave("holdfast:name")
	for _, p := range proxies {
		p.Heal()
	}
	comesTrue(t, "the release gets through", func() bool {
		return !isKind(e.Release(h.patience(), req.Claim(driver.Grant{})), driver.Unavailable)
	})
	h.allHave("holdfast:name", 0)
}
