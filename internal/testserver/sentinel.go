package testserver

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// SentinelOptions says what a set of servers under Sentinel consists of.
type SentinelOptions struct {
	Replicas  int // default 2
	Sentinels int // default 3; a majority decides
	// DownAfter is after what silence a server counts as down. Default: 1 s. Less makes
	// failovers for which there is no reason likely on a busy machine.
	DownAfter time.Duration
	// FailoverTimeout bounds the steps of a failover; one that failed is tried again after
	// twice as long. Default: 3 s.
	FailoverTimeout time.Duration
	// Password is what clients of master and replicas must know as the default user.
	Password string
	// SentinelPassword is what clients of the sentinels must know as the default user.
	SentinelPassword string
	// Config are further lines of the configuration file of master and replicas, as
	// "min-replicas-to-write 1".
	Config []string
	// OwnClocks gives master and replicas a wall clock each, see RedisOptions.OwnClock. Those
	// of the sentinels are the machine's.
	OwnClocks bool
}

// SentinelSet is a master with replicas, watched by sentinels, for one test. Everyone in it
// talks to a server through that server's proxy, and sentinels tell clients the address of the
// proxy. So a test can take a server from all the others and yet reach it, at its own address.
// The methods that cannot do what they say end the test.
type SentinelSet struct {
	t         testing.TB
	options   SentinelOptions
	nodes     []*RedisServer // the master at the start, then its replicas
	proxies   []*TCPProxy    // of nodes
	sentinels []*RedisServer
}

const masterName = "mymaster"

// Sentinel starts a master, replicas and sentinels, and returns when all replicas follow and
// every sentinel knows everyone. All are killed when the test ends.
func Sentinel(t testing.TB, options SentinelOptions) *SentinelSet {
	t.Helper()
	options.Replicas = cmp.Or(options.Replicas, 2)
	options.Sentinels = cmp.Or(options.Sentinels, 3)
	options.DownAfter = cmp.Or(options.DownAfter, time.Second)
	options.FailoverTimeout = cmp.Or(options.FailoverTimeout, 3*time.Second)
	s := &SentinelSet{t: t, options: options}
	for range 1 + options.Replicas {
		s.addNode()
	}
	s.until("the replicas follow", s.replicated)
	for range options.Sentinels {
		s.addSentinel()
	}
	s.until("the sentinels know everyone", s.watched)
	return s
}

// addNode starts a server and its proxy: a master if it is the first, else a replica.
func (s *SentinelSet) addNode() {
	s.t.Helper()
	n := newRedis(s.t, RedisOptions{Password: s.options.Password, OwnClock: s.options.OwnClocks})
	p := Proxy(s.t, "") // of a server that has no port yet
	p.Mark("PSYNC")     // replicas, as opposed to clients and sentinels
	n.options.Config = append([]string{
		"replica-announce-ip 127.0.0.1",
		fmt.Sprintf("replica-announce-port %d", p.Port()),
	}, s.options.Config...)
	if len(s.nodes) > 0 {
		n.options.ReplicaOf = s.proxies[0].Addr()
	}
	n.launch()
	p.change(func() { p.target = n.Addr() })
	s.nodes, s.proxies = append(s.nodes, n), append(s.proxies, p)
}

func (s *SentinelSet) addSentinel() {
	s.t.Helper()
	n := newRedis(s.t, RedisOptions{
		Password: s.options.SentinelPassword,
		Config: []string{
			fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d %d", masterName, s.proxies[0].Port(), s.quorum()),
			fmt.Sprintf("sentinel down-after-milliseconds %s %d", masterName, s.options.DownAfter.Milliseconds()),
			fmt.Sprintf("sentinel failover-timeout %s %d", masterName, s.options.FailoverTimeout.Milliseconds()),
			fmt.Sprintf("sentinel auth-user %s %s", masterName, ownUser),
			fmt.Sprintf("sentinel auth-pass %s %s", masterName, ownPassword),
			"sentinel sentinel-user " + ownUser,
			"sentinel sentinel-pass " + ownPassword,
		},
	})
	n.sentinel = true
	n.proc.args = append(n.proc.args, "--sentinel")
	n.launch()
	// They look for each other more often than every few seconds, and do not stop working for
	// half a minute after the machine was busy for two seconds. Those before 7.0 cannot be told.
	_, err := n.Do("SENTINEL", "DEBUG", "INFO-PERIOD", "500", "PUBLISH-PERIOD", "200",
		"TILT-TRIGGER", strconv.FormatInt(patience.Milliseconds(), 10))
	if err != nil && !strings.Contains(err.Error(), "Unknown subcommand") {
		s.t.Fatalf("SENTINEL DEBUG on port %d: %v", n.port, err)
	}
	s.sentinels = append(s.sentinels, n)
}

// replicated is nil when the master sends its writes to all replicas.
func (s *SentinelSet) replicated() error {
	for i, n := range s.nodes {
		replicas := s.options.Replicas
		if i > 0 {
			replicas = 0
		}
		if err := n.replicates(replicas); err != nil {
			return err
		}
	}
	return nil
}

// watched is nil when every sentinel has a working connection to everyone.
func (s *SentinelSet) watched() error {
	for _, n := range s.sentinels {
		for _, list := range []struct {
			what, flags string
			count       int
		}{
			{"MASTERS", "master", 1},
			{"REPLICAS", "slave", s.options.Replicas},
			{"SENTINELS", "sentinel", s.options.Sentinels - 1},
		} {
			args := []string{"SENTINEL", list.what, masterName}
			if list.what == "MASTERS" {
				args = args[:2]
			}
			reply, err := n.do(time.Second, args...)
			if err != nil {
				return err
			}
			entries, _ := reply.([]any)
			if len(entries) != list.count {
				return fmt.Errorf("the sentinel on port %d knows %d of %s", n.port, len(entries), list.what)
			}
			for _, e := range entries {
				fields := pairs(e)
				if fields["flags"] != list.flags || list.what == "REPLICAS" && fields["master-link-status"] != "ok" {
					return fmt.Errorf("for the sentinel on port %d, %s is %s", n.port, fields["name"], fields["flags"])
				}
			}
		}
	}
	return nil
}

// MasterName returns the name under which the sentinels know the master.
func (s *SentinelSet) MasterName() string { return masterName }

// SentinelAddrs returns the addresses of the sentinels, host:port.
func (s *SentinelSet) SentinelAddrs() []string {
	addrs := make([]string, len(s.sentinels))
	for i, n := range s.sentinels {
		addrs[i] = n.Addr()
	}
	return addrs
}

// Sentinels returns the sentinels.
func (s *SentinelSet) Sentinels() []*RedisServer { return slices.Clone(s.sentinels) }

// Nodes returns master and replicas, living or not: first the one that was master at the
// start. Their addresses lead past the proxies.
func (s *SentinelSet) Nodes() []*RedisServer { return slices.Clone(s.nodes) }

// Proxy returns the proxy through which everyone but the test talks to a node.
func (s *SentinelSet) Proxy(n *RedisServer) *TCPProxy {
	for i, node := range s.nodes {
		if node == n {
			return s.proxies[i]
		}
	}
	s.t.Helper()
	s.t.Fatal("a node of another set")
	return nil
}

// Master returns who is master for the first sentinel that answers, now.
func (s *SentinelSet) Master() *RedisServer {
	s.t.Helper()
	var master *RedisServer
	s.until("a sentinel knows the master", func() (err error) {
		for _, n := range s.sentinels {
			if n.down() {
				continue
			}
			if master, err = s.masterFor(n); err == nil {
				return nil
			}
		}
		return err
	})
	return master
}

// Replicas returns the nodes other than the master.
func (s *SentinelSet) Replicas() []*RedisServer {
	s.t.Helper()
	master := s.Master()
	var replicas []*RedisServer
	for _, n := range s.nodes {
		if n != master {
			replicas = append(replicas, n)
		}
	}
	return replicas
}

// masterFor returns who is master for one sentinel.
func (s *SentinelSet) masterFor(sentinel *RedisServer) (*RedisServer, error) {
	reply, err := sentinel.do(time.Second, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterName)
	if err != nil {
		return nil, err
	}
	if pair, _ := reply.([]any); len(pair) == 2 {
		addr := net.JoinHostPort(fmt.Sprint(pair[0]), fmt.Sprint(pair[1]))
		for i, p := range s.proxies {
			if p.Addr() == addr {
				return s.nodes[i], nil
			}
		}
	}
	return nil, fmt.Errorf("the sentinel on port %d says that %v is the master", sentinel.port, reply)
}

// WaitForMaster returns the master as soon as it is not the given one, a majority of the
// sentinels agrees on it, no sentinel that answers has another, and it knows itself.
func (s *SentinelSet) WaitForMaster(not *RedisServer) *RedisServer {
	s.t.Helper()
	var master *RedisServer
	s.until("there is a new master", func() error {
		votes := map[*RedisServer]int{}
		last := errors.New("all sentinels are down")
		for _, n := range s.sentinels {
			if n.down() {
				continue
			}
			m, err := s.masterFor(n)
			if err != nil {
				last = err
				continue
			}
			master = m
			votes[m]++
		}
		switch {
		case len(votes) == 0:
			return last
		case len(votes) > 1 || votes[not] > 0 || votes[master] < s.quorum():
			return fmt.Errorf("%d sentinels have the old master, %d others the one on port %d", votes[not], votes[master], master.port)
		}
		info, err := master.Info()
		if err == nil && info["role"] != "master" {
			err = fmt.Errorf("the node on port %d does not know yet", master.port)
		}
		return err
	})
	return master
}

func (s *SentinelSet) quorum() int { return s.options.Sentinels/2 + 1 }

// Failover has a sentinel make a replica the master, though the old one lives, and returns it.
func (s *SentinelSet) Failover() *RedisServer {
	s.t.Helper()
	old := s.Master()
	s.until("a sentinel starts a failover", func() error {
		err := errors.New("all sentinels are down")
		for _, n := range s.sentinels {
			if n.down() {
				continue
			}
			if _, err = n.do(time.Second, "SENTINEL", "FAILOVER", masterName); err == nil {
				return nil
			}
		}
		return err // no replica is good enough yet, or one failover is under way
	})
	return s.WaitForMaster(old)
}

// FreezeReplication stops what goes from a node to its replicas and back, and nothing else: its
// clients are served, and what they write is on that node only. It holds for replicas that come
// later too. The proxy's Thaw ends it.
func (s *SentinelSet) FreezeReplication(n *RedisServer) { s.Proxy(n).FreezeMarked() }

// Isolate takes a node from everyone who talks to it through its proxy: replicas, sentinels
// and the clients whom they sent. Who uses the node's own address still reaches it. A replica
// still follows its master, whose proxy that is up to. The proxy's Heal ends it.
func (s *SentinelSet) Isolate(n *RedisServer) { s.Proxy(n).Partition() }

func (s *SentinelSet) until(what string, try func() error) {
	s.t.Helper()
	if err := poll(nil, try); err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}
