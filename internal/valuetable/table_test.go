package valuetable

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// table is one in memory. before is called before each operation of that name, without the
// lock: that is where others come in between.
type table struct {
	mu      sync.Mutex
	rows    map[string]Row
	drawn   int64
	updates int
	before  func(op string)
	fails   map[string]error
}

func newTable() *table {
	return &table{rows: make(map[string]Row), before: func(string) {}, fails: make(map[string]error)}
}

func (t *table) Read(_ context.Context, name string) (driver.Value, bool, error) {
	t.before("read")
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.rows[name]
	if !ok {
		r.Empty = true
	}
	return r.Value(time.Now().UnixMicro()), ok, t.fails["read"]
}

func (t *table) Update(_ context.Context, w driver.Write) (driver.Value, bool, error) {
	t.before("update")
	t.mu.Lock()
	defer t.mu.Unlock()
	t.updates++
	now := time.Now().UnixMicro()
	r, ok := t.rows[w.Name]
	was := r.Value(now)
	if err := t.fails["update"]; err != nil || !ok || refusal(&w, &was) != nil || w.Delete && was.Version == 0 {
		return driver.Value{}, false, err
	}
	if w.Delete {
		delete(t.rows, w.Name)
		return driver.Value{Now: time.UnixMicro(now)}, true, nil
	}
	t.drawn++
	r = Row{Version: t.drawn, Fence: max(was.Fence, w.Fence), Data: bytes.Clone(w.Data)}
	if w.TTL > 0 {
		r.Until = now + w.TTL.Microseconds()
	}
	t.rows[w.Name] = r
	return r.Value(now), true, nil
}

func (t *table) Insert(_ context.Context, name string) error {
	t.before("insert")
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.rows[name]; !ok {
		t.rows[name] = Row{Empty: true}
	}
	return t.fails["insert"]
}

// look is what a poller asks.
func (t *table) look(_ context.Context, names []string) (map[string]Seen, error) {
	t.before("look")
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := make(map[string]Seen)
	for _, name := range names {
		if r, ok := t.rows[name]; ok {
			v := r.Value(time.Now().UnixMicro())
			seen[name] = Seen{Version: v.Version, TTL: v.TTL}
		}
	}
	return seen, t.fails["look"]
}

// fail has every such operation fail from now on.
func (t *table) fail(op string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fails[op] = err
}

func put(t *testing.T, x Table, w driver.Write) driver.Value {
	t.Helper()
	v, err := Write(t.Context(), x, w)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func isStale(err error) bool {
	var d *driver.Error
	return errors.As(err, &d) && d.Kind == driver.Stale && d.Outcome == driver.NotApplied
}

func TestWrite(t *testing.T) {
	x := newTable()
	first := put(t, x, driver.Write{Name: "a", Data: []byte("1"), Fence: 5})
	if first.Version == 0 || first.Fence != 5 {
		t.Errorf("the first write answered %+v", first)
	}
	for why, w := range map[string]driver.Write{
		"version 0": {Name: "a"}, "another version": {Name: "a", If: 77}, "a lower fence": {Name: "a", If: driver.AnyVersion, Fence: 4},
		"a lower fence, to delete": {Name: "a", Delete: true, If: first.Version, Fence: 4},
	} {
		if v, err := Write(t.Context(), x, w); !isStale(err) || v.Version != first.Version || string(v.Data) != "1" {
			t.Errorf("a write with %s: %+v, %v", why, v, err)
		}
	}
	if v := put(t, x, driver.Write{Name: "a", Delete: true, If: first.Version}); v.Version != 0 {
		t.Errorf("a deletion answered %+v", v)
	}
	put(t, x, driver.Write{Name: "a", Delete: true, If: driver.AnyVersion})
	if len(x.rows) != 0 {
		t.Errorf("a deletion of nothing has left %v", x.rows)
	}
}

// What refused a write is gone when the answer is read: the write begins again, instead of
// being refused for what lets it pass.
func TestWriteBeginsAgain(t *testing.T) {
	x := newTable()
	put(t, x, driver.Write{Name: "a"})
	x.before = func(op string) {
		if op == "read" {
			x.before = func(string) {}
			put(t, x, driver.Write{Name: "a", Delete: true, If: driver.AnyVersion})
		}
	}
	if v := put(t, x, driver.Write{Name: "a", Data: []byte("new")}); string(v.Data) != "new" {
		t.Errorf("stored was %+v", v)
	}
}

// Somebody else takes the row away each time. That ends.
func TestWriteGivesUp(t *testing.T) {
	x := newTable()
	x.before = func(op string) {
		if op == "update" {
			delete(x.rows, "a")
		}
	}
	_, err := Write(t.Context(), x, driver.Write{Name: "a"})
	var d *driver.Error
	if !errors.As(err, &d) || d.Kind != driver.Unavailable || d.Outcome != driver.NotApplied || x.updates != maxTries {
		t.Errorf("after %d tries: %v", x.updates, err)
	}
}

func TestWriteFails(t *testing.T) {
	for _, op := range []string{"read", "update", "insert"} {
		x := newTable()
		x.fail(op, errors.New(op))
		if v, err := Write(t.Context(), x, driver.Write{Name: "a"}); err != x.fails[op] || v.Version != 0 {
			t.Errorf("%s failed, and Write answered %+v, %v", op, v, err)
		}
	}
}

func TestRow(t *testing.T) {
	r := Row{Version: 3, Fence: 4, Until: 1000, Data: []byte("x")}
	if v := r.Value(999); v.Version != 3 || v.Fence != 4 || v.TTL != time.Microsecond || v.Now != time.UnixMicro(999) {
		t.Errorf("before its end it is %+v", v)
	}
	if v := r.Value(1000); v.Version != 0 || v.Fence != 0 || v.Data != nil || v.TTL != 0 {
		t.Errorf("at its end it is %+v", v)
	}
	r.Until = 0
	if v := r.Value(1 << 50); v.Version != 3 || v.TTL != 0 {
		t.Errorf("without an end it is %+v", v)
	}
	r.Empty = true
	if v := r.Value(0); v.Version != 0 || v.Data != nil {
		t.Errorf("empty it is %+v", v)
	}
}
