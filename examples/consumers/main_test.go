package main

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/examples/internal/cluster"
	"github.com/holdfast-go/holdfast/examples/internal/program"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/memlock"
)

func TestMain(m *testing.M) { cluster.Main(m, main) }

// stream notes what all consumers together have handled.
type stream struct {
	t *testing.T

	mu      sync.Mutex
	busy    map[int]bool
	handled map[int][]int // messages of each partition, as they were begun
}

func newStream(t *testing.T) *stream {
	return &stream{t: t, busy: map[int]bool{}, handled: map[int][]int{}}
}

// handle takes a second for a message.
func (s *stream) handle(ctx context.Context, partition, message int) error {
	s.mu.Lock()
	if s.busy[partition] {
		s.t.Errorf("two handle messages of partition %d", partition)
	}
	s.busy[partition] = true
	s.handled[partition] = append(s.handled[partition], message)
	s.mu.Unlock()
	err := program.Sleep(ctx, time.Second)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy[partition] = false
	return err
}

func (s *stream) consumer(m *cluster.Memory) *cluster.Instance {
	return m.Start(func(ctx context.Context, hf *holdfast.Client) error { return run(ctx, hf, s.handle) })
}

// check fails unless every partition has got to message n, none was left out, and at most so many were
// handled a second time.
func (s *stream) check(n, again int) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range partitions {
		next, twice := 0, 0
		for _, message := range s.handled[p] {
			switch message {
			case next:
				next++
			case next - 1:
				twice++
			default:
				s.t.Fatalf("partition %d: message %d after %d", p, message, next-1)
			}
		}
		if next < n || twice > again {
			s.t.Errorf("partition %d: %d messages, of which %d twice; want %d at least, and %d", p, next, twice, n, again)
		}
	}
}

// Consumers that come and leave handle every message once.
func TestRebalance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s := cluster.InMemory(t), newStream(t)
		first := s.consumer(m)
		time.Sleep(10*time.Second + time.Second/2)
		second := s.consumer(m)
		third := s.consumer(m)
		time.Sleep(20 * time.Second)
		second.Stop() // in the middle of a message of each of its partitions
		time.Sleep(20 * time.Second)
		first.Stop()
		third.Stop()
		s.check(40, 0)
	})
}

// What a consumer had that died goes on where it was; the message that it died in is handled again.
func TestDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, s := cluster.InMemory(t), newStream(t)
		first, second := s.consumer(m), s.consumer(m)
		time.Sleep(20*time.Second + time.Second/2)
		first.Kill()
		time.Sleep(40 * time.Second)
		second.Stop()
		s.check(30, 1)
	})
}

// A handler that does not return in time is told by its context, and its message is handled again.
func TestDrainEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := cluster.InMemory(t)
		began := make(chan int, 100)
		i := m.Start(func(ctx context.Context, hf *holdfast.Client) error {
			return run(ctx, hf, func(ctx context.Context, partition, message int) error {
				if partition == 0 {
					began <- message
				}
				return program.Sleep(ctx, time.Hour)
			})
		})
		<-began
		i.Stop()
		s := newStream(t)
		s.consumer(m)
		time.Sleep(10 * time.Second)
		s.check(5, 0)
	})
}

// An owner that was paused past its lease, and has not been told, notes nothing once there is another one.
func TestLateOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := cluster.InMemory(t)
		late, owner := m.Client().Item("consumers:0"), m.Client().Item("consumers:0")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		busy := errors.New("busy with its first message")
		next, err := consume(ctx, late, &holdfast.Partition{}, func(_ context.Context, _, message int) error {
			if message > 3 {
				cancel() // or a late owner that is not refused would go on for ever
			}
			if message != 3 {
				return ctx.Err()
			}
			next, err := consume(ctx, owner, &holdfast.Partition{}, func(context.Context, int, int) error { return busy })
			if next != 3 || err != busy {
				t.Errorf("the next owner begins at %d: %v", next, err)
			}
			return nil
		})
		if next != 3 || !errors.Is(err, holdfast.ErrStale) {
			t.Errorf("the late owner ends before message %d: %v", next, err)
		}
		wantOffset(t, owner, "3")
	})
}

// An earlier owner's note that arrives while the next one begins is heeded.
func TestNoteWhileTaking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := cluster.InMemory(t)
		late, owner := m.Client().Item("consumers:0"), m.Client().Item("consumers:0")
		_, at, err := take(t.Context(), late)
		if err != nil {
			t.Fatal(err)
		}
		var once sync.Once
		m.Inject(func(call memlock.Call) (none memlock.Fault) {
			if call.Op == memlock.OpWrite { // of the next owner, which has read
				once.Do(func() {
					m.Inject(nil)
					if _, err := late.CompareAndSet(t.Context(), at.Version, []byte("1"), 0); err != nil {
						t.Error(err)
					}
				})
			}
			return none
		})
		if next, _, err := take(t.Context(), owner); next != 1 || err != nil {
			t.Errorf("the next owner begins at %d: %v", next, err)
		}
		wantOffset(t, owner, "1")
	})
}

func wantOffset(t *testing.T, offset *holdfast.Item, want string) {
	t.Helper()
	if v, err := offset.Get(t.Context()); err != nil || string(v.Data) != want {
		t.Errorf("the offset is %q, %v, want %s", v.Data, err, want)
	}
}

// Two processes on a server, one of which is killed: the other one takes over what it had, and
// handles every message.
func TestKilled(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, testserver.RedisOptions{})
	start := func() *cluster.Process {
		return cluster.Start(t, "-engine", "redis://"+server.Addr()+"?ttl=1s", "-takes", "50ms")
	}
	first := start()
	first.Await(partitions, "begins")
	second := start()
	partition := second.Await(20, handling)[1]
	second.Kill()
	lines := second.Lines()
	last := 0
	for _, line := range lines {
		if m := message(line, partition); m >= 0 {
			last = m
		}
	}
	first.Await(1, `partition `+partition+`: message `+strconv.Itoa(last+5)+`$`)
	first.Stop()
	seen := map[int]bool{}
	for _, line := range append(lines, first.Lines()...) {
		seen[message(line, partition)] = true
	}
	for n := range last + 6 {
		if !seen[n] {
			t.Errorf("message %d of partition %s was left out", n, partition)
		}
	}
}

const handling = `partition (\d+): message (\d+)$`

// message returns which message of the partition a line tells of, -1 where of none.
func message(line, partition string) int {
	m := regexp.MustCompile(handling).FindStringSubmatch(line)
	if m == nil || m[1] != partition {
		return -1
	}
	n, err := strconv.Atoi(m[2])
	if err != nil {
		return -1
	}
	return n
}
