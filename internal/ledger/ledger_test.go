package ledger

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/holdfast-go/holdfast/driver"
)

// TestRandomOperations applies random operations to a ledger and checks after each what must
// hold whatever came before.
func TestRandomOperations(t *testing.T) {
	for range 300 {
		seed := rand.Uint64()
		if err := operate(rand.New(rand.NewPCG(seed, 0)), 200); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func operate(rng *rand.Rand, steps int) error {
	var (
		l       Ledger
		f       Fences
		highest int64
		now     = int64(1_000_000)
	)
	for step := range steps {
		now += rng.Int64N(50) - 5 // a clock that is stepped back now and then
		token := driver.Token{byte(rng.IntN(6))}
		share := l.Find(token)
		switch op := rng.IntN(10); {
		case op < 6:
			req := request(rng, token, share)
			granted, verdict := l.Ask(&req, "home", &f, now)
			if (granted != nil) != (verdict == Granted) || granted != nil && granted != l.Find(token) {
				return fmt.Errorf("step %d: verdict %d with the share %+v", step, verdict, granted)
			}
			if verdict == Granted {
				if err := numbers(granted, &highest, req.Span); err != nil {
					return fmt.Errorf("step %d: %w", step, err)
				}
			}
			if s := l.Find(token); verdict != Missing && !req.Wait && s != nil && s.State != Held {
				return fmt.Errorf("step %d: a request that does not wait is in state %d", step, s.State)
			}
		case op < 8:
			l.Remove(token)
		default:
			l.Withdraw(token)
		}
		var err error
		l.Settle(&f, now, func(s *Share) {
			if e := numbers(s, &highest, s.Span); e != nil {
				err = e
			}
		})
		if err == nil {
			err = invariants(&l)
		}
		if err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
	}
	return nil
}

// request repeats what the token asked for before, or asks for something new.
func request(rng *rand.Rand, token driver.Token, share *Share) driver.Request {
	req := driver.Request{
		Token: token, Mode: driver.Mode(1 + rng.IntN(4)), Span: 1 + rng.IntN(4), Wait: rng.IntN(3) > 0,
	}
	if share != nil {
		req.Mode, req.Weight, req.Limit = share.Mode, share.Weight, share.Limit
		if share.Mode == driver.Upgradeable && rng.IntN(2) == 0 {
			req.Mode, req.Upgrade = driver.Exclusive, true
		}
	} else if req.Mode == driver.Permits {
		req.Limit = 3
		req.Weight = 1 + rng.IntN(3)
	}
	return req
}

// numbers checks the fences of a grant: more than zero and at most as many as were asked for,
// all above every number before.
func numbers(s *Share, highest *int64, span int) error {
	if s.FenceSpan < 1 || s.FenceSpan > span || s.Fence <= *highest {
		return fmt.Errorf("granted %d numbers from %d on, of %d asked for, after %d", s.FenceSpan, s.Fence, span, *highest)
	}
	*highest = s.Top()
	return nil
}

// invariants checks who holds together, and that nobody waits who could be served.
func invariants(l *Ledger) error {
	held, weight := map[driver.Mode]int{}, 0
	for i := range l.Shares {
		s := &l.Shares[i]
		if s.State == Waiting {
			continue
		}
		held[s.Mode]++
		if s.Mode == driver.Permits {
			weight += s.Weight
		}
	}
	all := held[driver.Exclusive] + held[driver.Shared] + held[driver.Upgradeable] + held[driver.Permits]
	switch {
	case held[driver.Exclusive] > 0 && all > 1:
		return fmt.Errorf("an exclusive share beside others: %v", held)
	case held[driver.Upgradeable] > 1:
		return fmt.Errorf("%d upgradeable shares", held[driver.Upgradeable])
	case held[driver.Permits] > 0 && all > held[driver.Permits]:
		return fmt.Errorf("permits beside other shares: %v", held)
	case weight > 3:
		return fmt.Errorf("%d permits of 3", weight)
	case all == 0 && len(l.Shares) > 0:
		return fmt.Errorf("%d wait and nobody holds", len(l.Shares))
	}
	return nil
}

func TestFences(t *testing.T) {
	var f Fences
	next := func(span int, now int64) string {
		first, n := f.Next(span, now)
		return fmt.Sprint(first, "+", n)
	}
	for _, tc := range []struct {
		span      int
		now       int64
		want, why string
	}{
		{1, 1000, "1000+1", "the clock leads"},
		{5, 1000, "1001+1", "the clock stands still: a span must not outrun it"},
		{5, 1004, "1002+3", "the span is cut to the clock's lead"},
		{5, 2000, "1996+5", "a span ends at the clock"},
		{1, 500, "2001+1", "the clock was set back"},
		{0, 500, "2002+1", "no span is a span of one"},
		{1, 1 << 62, fmt.Sprint(int64(maxClock), "+1"), "an absurd clock leaves numbers to count on with"},
		{1, 1 << 62, fmt.Sprint(int64(maxClock)+1, "+1"), "and is counted on from"},
	} {
		if got := next(tc.span, tc.now); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.why, got, tc.want)
		}
	}
	f = Fences{Last: 10, Ahead: true}
	if got := next(5, 3); got != "11+5" {
		t.Errorf("a counter that may run ahead answered %s", got)
	}
}

// TestEnterLeavesNothingOfOthers: a share that is entered where another one stood has nothing
// of it. Should Share get a field that enter does not write, this fails.
func TestEnterLeavesNothingOfOthers(t *testing.T) {
	var l Ledger
	dirty := reflect.ValueOf(&Share{}).Elem()
	for i := range dirty.NumField() {
		switch f := dirty.Field(i); f.Kind() {
		case reflect.String:
			f.SetString("left over")
		case reflect.Int, reflect.Int64:
			f.SetInt(7)
		case reflect.Uint8:
			f.SetUint(2)
		case reflect.Array:
			f.Index(0).SetUint(9)
		default:
			t.Fatalf("field %s has a kind that this test does not know", dirty.Type().Field(i).Name)
		}
	}
	l.Shares = append(l.Shares, dirty.Interface().(Share))[:0]
	i := l.enter(&driver.Request{}, "")
	if got := l.Shares[i]; got != (Share{}) {
		t.Errorf("entered an empty request, found %+v", got)
	}
}
