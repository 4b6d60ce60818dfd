package redislock_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
)

// TestCountMirror holds lua/count.lua against Count.Apply over random steps, windows of all
// lengths among them: the server's answer, and what it keeps, are those of some microsecond
// between the call and its return.
func TestCountMirror(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, testserver.RedisOptions{})
	e, err := redislock.Open(t.Context(), "redis://"+server.Addr(), redislock.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range 1500 {
		c := randomCount(random)
		if err := driver.CheckCount(c); err != nil {
			t.Fatal(err)
		}
		if random.IntN(20) == 0 {
			time.Sleep(time.Duration(random.IntN(3000)) * time.Microsecond)
		}
		data := keptCount(t, server, c.Name)
		left, _ := must(t, server, "PTTL", "holdfast.c:holdfast:"+c.Name).(int64)
		before := time.Now()
		got := e.Count(t.Context(), []driver.Count{c})[0]
		after := time.Now()
		keeps := keptCount(t, server, c.Name)
		why := mirrors(c, data, got, keeps, before, after)
		if why != "" && left != -1 && time.Duration(left)*time.Millisecond <= time.Since(before)+2*time.Millisecond {
			why = mirrors(c, "", got, keeps, before, after) // it may have expired on the way
		}
		if why != "" {
			t.Fatalf("step %d, %+v on %q: the server answers %+v and keeps %q; at the end of the call it should be %s", i, c, data, got, keeps, why)
		}
	}
}

func randomCount(random *rand.Rand) driver.Count {
	// One window a name: what is kept expires by the window that it was written under.
	name := random.IntN(12)
	c := driver.Count{
		Name: fmt.Sprint("mirror-", name), Rule: driver.Total + driver.Rule(random.IntN(6)),
		Limit: 1 + random.Int64N(30), Window: time.Duration(1+name*name) * time.Millisecond,
	}
	c.Burst = 1 + random.Int64N(c.Limit)
	c.N, c.Times = random.Int64N(c.Burst+1), random.Int64N(6)
	switch {
	case random.IntN(10) == 0:
		c.Rule = driver.Forget
	case random.IntN(20) == 0:
		c.Name, c.Limit, c.Window = "mirror-large", driver.MaxLimit-random.Int64N(100), driver.MaxWindow
		c.Burst = c.Limit
		c.N, c.Times = random.Int64N(c.Limit), random.Int64N(80_000_000)
	case c.Rule == driver.Raise && random.IntN(10) == 0:
		c.N, c.Times = driver.MaxTotal-random.Int64N(5), 0
	case c.Rule == driver.Window && random.IntN(4) == 0:
		c.N, c.Times = random.Int64N(2*driver.MaxTotal)-driver.MaxTotal, 0
	}
	return c
}

// keptCount returns what the server keeps, without the term of a total.
func keptCount(t *testing.T, server *testserver.RedisServer, name string) string {
	t.Helper()
	kept, _ := must(t, server, "GET", "holdfast.c:holdfast:"+name).(string)
	if strings.HasPrefix(kept, "t ") {
		kept = kept[:strings.LastIndexByte(kept, ' ')]
	}
	return kept
}

// mirrors returns what it should have been, and nothing where it was.
func mirrors(c driver.Count, data string, got driver.Counted, keeps string, before, after time.Time) (why string) {
	for at := before.Truncate(time.Microsecond); !at.After(after.Add(time.Microsecond)); at = at.Add(time.Microsecond) {
		keep, ttl, want := c.Apply([]byte(data), at)
		if want.Err != nil && got.Err != nil {
			return ""
		}
		expired := keeps == "" && ttl > 0 && at.Add(ttl).Before(time.Now())
		if got == want && (string(keep) == keeps || expired) {
			return ""
		}
		why = fmt.Sprintf("%+v, keeping %q for %v", want, keep, ttl)
	}
	return why
}
