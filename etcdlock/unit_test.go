package etcdlock

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// TestNamesOfKeys: a name's keys tell its name, and lie among those of no other.
func TestNamesOfKeys(t *testing.T) {
	names := []string{"a", "a/b", "a%2Fb", "a%", "a%25", "%", "/", "//", "a/", "é/%", strings.Repeat("/", driver.MaxName)}
	for _, prefix := range []string{"holdfast/", "", "x%/"} {
		cfg := Config{Prefix: prefix}
		for _, name := range names {
			key := cfg.keysOf(name) + "694d7f1e"
			if got, ok := cfg.nameOf(key); !ok || got != name {
				t.Errorf("the key %q is said to be of %q, %v, want %q", key, got, ok, name)
			}
			for _, other := range names {
				if other != name && strings.HasPrefix(key, cfg.keysOf(other)) {
					t.Errorf("the key %q of %q lies among those of %q", key, name, other)
				}
			}
		}
		for _, key := range []string{prefix + auditKeys + "x", prefix + trialKeys + "x", prefix + "a", "\x00/b", prefix + "a%2f/x"} {
			if name, ok := cfg.nameOf(key); ok {
				t.Errorf("the key %q is said to be of %q", key, name)
			}
		}
	}
}

// TestForeignValues: whatever others write, or a damaged entry, shares with nobody.
func TestForeignValues(t *testing.T) {
	for _, value := range []string{
		"", "x", "{}", "null", `{"holdfast":2,"mode":"shared"}`, `{"holdfast":1}`, `{"holdfast":1,"mode":"none"}`,
		`{"holdfast":1,"mode":"permits"}`, `{"holdfast":1,"mode":"permits","weight":2,"limit":1}`,
		`{"holdfast":1,"mode":"permits","weight":-1,"limit":1}`, `{"holdfast":1,"mode":"shared","weight":"x"}`,
		`{"holdfast":1,"mode":"permits","weight":4611686018427387904,"limit":4611686018427387904}`,
	} {
		e := parse(&mvccpb.KeyValue{Key: []byte("k"), Value: []byte(value), CreateRevision: 1, ModRevision: 1})
		if !e.foreign || e.mode != driver.Exclusive {
			t.Errorf("%q counts as %v", value, e.mode)
		}
	}
	n := newNote(&driver.Request{Mode: driver.Permits, Weight: 2, Limit: 3, Owner: "é\"\n", Span: 1000})
	e := parse(&mvccpb.KeyValue{Key: []byte("k"), Value: []byte(n.encode()), CreateRevision: 7, ModRevision: 9})
	if e.foreign || e.note != n {
		t.Errorf("%+v was read as %+v", n, e)
	}
	if first, last := e.fences(); first != 9<<7 || last != 9<<7+127 {
		t.Errorf("fences %d to %d", first, last)
	}
	e.Granted = 8
	if first, _ := e.fences(); first != 8<<7 || fenceOf(maxRevision-1)+maxSpan > 1<<53 {
		t.Errorf("fences from %d", first)
	}
}

// TestRule lets random requests come, go, upgrade and be granted, each by what it sees itself
// at a moment of its own, and checks that none are granted together that conflict, that what
// is granted stays so by the rule, and that somebody can always go on.
func TestRule(t *testing.T) {
	for range 400 {
		seed := rand.Uint64()
		m := &ruleModel{rng: rand.New(rand.NewPCG(seed, 0)), granted: map[string]bool{}}
		for step := range 300 {
			m.revision++
			m.step()
			if err := m.check(); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
		}
	}
}

type ruleModel struct {
	rng      *rand.Rand
	revision int64
	entries  []entry // in their order
	granted  map[string]bool
}

func (m *ruleModel) step() {
	i := -1
	if len(m.entries) > 0 {
		i = m.rng.IntN(len(m.entries))
	}
	switch op := m.rng.IntN(8); {
	case op < 2 || i < 0: // one more comes
		e := entry{key: fmt.Sprint("k/", m.revision), create: m.revision, mod: m.revision, mode: driver.Mode(1 + m.rng.IntN(4))}
		if m.rng.IntN(3) > 0 {
			e.mode = driver.Mode(2 + m.rng.IntN(2)) // readers, for upgrades to meet
		}
		e.foreign = e.mode == driver.Exclusive && m.rng.IntN(3) == 0
		if e.mode == driver.Permits {
			e.Limit = 3
			e.Weight = 1 + m.rng.IntN(3)
		}
		m.entries = append(m.entries, e)
	case op < 4: // one goes, whether it holds or waits
		delete(m.granted, m.entries[i].key)
		m.entries = append(m.entries[:i:i], m.entries[i+1:]...)
	case op < 6: // one looks, by the rule of its kind
		m.look(i)
	default:
		m.raise(i)
	}
}

func (m *ruleModel) look(i int) {
	e := &m.entries[i]
	if m.granted[e.key] {
		return
	}
	free := findObstacle(m.entries[:i], e).entry == nil
	if e.foreign {
		free = i == 0
	}
	if free {
		m.granted[e.key] = true
		e.mod = m.revision
	}
}

// raise marks an upgradeable share, takes the mark off again, moves its key to another lease, or
// makes it exclusive.
func (m *ruleModel) raise(i int) {
	e := &m.entries[i]
	if e.mode != driver.Upgradeable || !m.granted[e.key] {
		return
	}
	s := surveyOf(m.entries, keys{all: "k/", own: e.key}, m.revision-1)
	switch {
	case s.reader == nil:
		e.mode, e.Upgrading, e.mod = driver.Exclusive, false, m.revision
	case m.rng.IntN(4) == 0:
		e.Upgrading, e.mod = false, m.revision
	default:
		e.Upgrading, e.mod = true, m.revision
	}
}

func (m *ruleModel) check() error {
	count, weight, holding := map[driver.Mode]int{}, 0, 0
	able := len(m.entries) == 0
	for i := range m.entries {
		e := &m.entries[i]
		free := findObstacle(m.entries[:i], e).entry == nil
		able = able || free
		if !m.granted[e.key] {
			continue
		}
		if !free && !e.foreign {
			return fmt.Errorf("%+v was granted and would not be again", e)
		}
		count[e.mode]++
		weight += e.Weight
		holding++
	}
	switch {
	case !able:
		return fmt.Errorf("nobody can go on: %+v", m.entries)
	case count[driver.Exclusive] > 0 && holding > 1, count[driver.Upgradeable] > 1,
		count[driver.Permits] > 0 && holding > count[driver.Permits], weight > 3:
		return fmt.Errorf("held together: %v, weight %d", count, weight)
	}
	return nil
}

// TestPlaces: no two requests have one key, keys are used again, and nothing is left.
func TestPlaces(t *testing.T) {
	l := &lease{engine: &Engine{cfg: Config{Prefix: "p/"}}, id: 0x2a, slots: map[string]*slots{}}
	first, second := l.take("n"), l.take("n")
	if first.key != "p/n/2a" || second.key != "p/n/2a-1" {
		t.Errorf("keys %q and %q", first.key, second.key)
	}
	if other := l.take("m"); other.key != "p/m/2a" {
		t.Errorf("key %q", other.key)
	}
	first.leave()
	if again := l.take("n"); again.key != first.key {
		t.Errorf("key %q is not used again, but %q", first.key, again.key)
	}
	second.leave()
	first.leave()
	if len(l.slots) != 1 {
		t.Errorf("%d names are left, want m only", len(l.slots))
	}
}

// TestCovers: a share may count on a renewal only within its spare time, and only if a majority
// has answered in the same term.
func TestCovers(t *testing.T) {
	l := &lease{ttl: 11 * time.Second, spare: time.Second, sent: 100, term: 7}
	for _, tc := range []struct {
		sent driver.Instant
		term uint64
		want bool
	}{
		{100, 7, true}, {50, 7, true}, {driver.Instant(100).Add(time.Second), 7, true},
		{driver.Instant(101).Add(time.Second), 7, false}, {100, 8, false}, {100, 6, false},
	} {
		if got := l.covers(tc.sent, tc.term); got != tc.want {
			t.Errorf("sent at %v in term %d: %v", tc.sent, tc.term, got)
		}
	}
	l.kill()
	if l.covers(100, 7) {
		t.Error("a lease that is gone covers a share")
	}
}
