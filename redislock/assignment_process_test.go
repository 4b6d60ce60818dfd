//go:build unix

package redislock_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

const (
	// memberServer and memberName make the test binary a member of an assignment.
	memberServer, memberName = "HOLDFAST_MEMBER_SERVER", "HOLDFAST_MEMBER_NAME"

	partitions = 100
	memberTTL  = 2 * time.Second
)

// TestAssignmentMember is the member that is killed. What it works on it writes into the hash
// "owners", where somebody else must not stand, and counts what it began in "begun".
func TestAssignmentMember(t *testing.T) {
	if os.Getenv(memberServer) == "" {
		return
	}
	r := redis.NewClient(&redis.Options{Addr: os.Getenv(memberServer)})
	e, err := redislock.New(r, redislock.Config{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := holdfast.New(e, holdfast.Config{TTL: memberTTL})
	if err != nil {
		t.Fatal(err)
	}
	name := os.Getenv(memberName)
	ctx, leave := context.WithCancel(context.Background())
	go func() { // it leaves with the end of its input
		bufio.NewReader(os.Stdin).ReadString('\n')
		leave()
	}()
	a := c.Assignment("g", holdfast.AssignmentConfig{Partitions: partitions, Member: name})
	err = a.Run(ctx, func(ctx context.Context, p *holdfast.Partition) error {
		field := fmt.Sprint(p.Number)
		if alone, err := r.HSetNX(ctx, "owners", field, name).Result(); !alone && err == nil {
			fmt.Println("two owners of partition", p.Number)
		}
		r.Incr(ctx, "begun")
		select {
		case <-p.Draining():
		case <-ctx.Done():
		}
		if ctx.Err() == nil { // it is this member's still
			r.HDel(context.WithoutCancel(ctx), "owners", field)
		}
		return nil
	})
	c.Close()
	fmt.Println("left:", err)
}

// members are processes that share partitions.
type members struct {
	t      *testing.T
	server *testserver.RedisServer
	client *redis.Client
	all    map[string]*exec.Cmd
	leave  map[string]func()
	wrong  atomic.Value // what a member complained of
}

func (m *members) join(name string) {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestAssignmentMember$")
	cmd.Env = append(os.Environ(), memberServer+"="+m.server.Addr(), memberName+"="+name)
	in, err := cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.Contains(lines.Text(), "two owners") {
				m.wrong.Store(name + ": " + lines.Text())
			}
		}
	}()
	m.all[name] = cmd
	m.leave[name] = func() {
		in.Close()
		<-over
		_ = cmd.Wait() // of a killed one it tells how it ended
		delete(m.all, name)
	}
}

// kill kills a member. What it worked on is nobody's from then on, and free when its leases end.
func (m *members) kill(name string) {
	_ = m.all[name].Process.Kill()
	m.leave[name]()
	owners, err := m.client.HGetAll(m.t.Context(), "owners").Result()
	if err != nil {
		m.t.Fatal(err)
	}
	for field, owner := range owners {
		if owner == name {
			m.client.HDel(m.t.Context(), "owners", field)
		}
	}
}

// settle waits until everything is owned evenly by the members there are, and returns how
// many partitions each has.
func (m *members) settle(what string) map[string]int {
	m.t.Helper()
	var loads map[string]int
	comesTrue(m.t, what, func() bool {
		owners, err := m.client.HGetAll(m.t.Context(), "owners").Result()
		if err != nil {
			m.t.Fatal(err)
		}
		loads = map[string]int{}
		for _, owner := range owners {
			loads[owner]++
		}
		low, high := partitions, 0
		for _, n := range loads {
			low, high = min(low, n), max(high, n)
		}
		return len(owners) == partitions && len(loads) == len(m.all) && high-low <= 1
	})
	if wrong := m.wrong.Load(); wrong != nil {
		m.t.Fatal(wrong)
	}
	return loads
}

func (m *members) begun() int {
	n, _ := m.client.Get(m.t.Context(), "begun").Int()
	return n
}

// TestAssignmentProcesses: 100 partitions over five processes, of which some are killed, leave
// and join. Each time everything is owned evenly again, no partition ever has two owners, and
// no more partitions move than had to, plus a tenth.
func TestAssignmentProcesses(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, testserver.RedisOptions{})
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	m := &members{t: t, server: server, client: client, all: map[string]*exec.Cmd{}, leave: map[string]func(){}}
	t.Cleanup(func() {
		for name := range m.all {
			m.kill(name)
		}
	})
	for i := range 5 {
		m.join(fmt.Sprint("m", i))
	}
	had := m.settle("five members share evenly")
	change := func(what string, f func()) {
		t.Helper()
		before := m.begun()
		f()
		has := m.settle(what)
		fewest := partitions
		for name, n := range has {
			fewest -= min(n, had[name])
		}
		if moved := m.begun() - before; moved > fewest+partitions/10 {
			t.Errorf("%s: %d moves, %d would do", what, moved, fewest)
		}
		had = has
	}
	change("one is killed", func() { m.kill("m1") })
	change("one joins", func() { m.join("m5") })
	change("two are killed", func() { m.kill("m2"); m.kill("m3") })
	change("one leaves", func() { m.leave["m0"]() })
	change("one joins", func() { m.join("m6") })
	for name := range m.all {
		m.leave[name]()
	}
	if wrong := m.wrong.Load(); wrong != nil {
		t.Error(wrong)
	}
	if owners := client.HLen(t.Context(), "owners").Val(); owners != 0 {
		t.Errorf("%d partitions are owned when all have left", owners)
	}
}
