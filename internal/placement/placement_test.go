package placement_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/holdfast-go/holdfast/internal/placement"
)

func members(n int) []placement.Member {
	var all []placement.Member
	for i := range n {
		all = append(all, placement.Member{ID: fmt.Sprint("m", i), Weight: 1})
	}
	return all
}

func loads(plan []string) map[string]int {
	count := map[string]int{}
	for _, id := range plan {
		count[id]++
	}
	return count
}

func moves(from, to []string) (n int) {
	for p := range to {
		if p >= len(from) || from[p] != to[p] {
			n++
		}
	}
	return n
}

func TestEvenAndSticky(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var plan []string
	for range 2000 {
		all := members(1 + random.IntN(12))
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		all = all[:1+random.IntN(len(all))]
		n := random.IntN(120)
		next := placement.Plan(n, plan, all)
		count, had := loads(next), loads(plan[:min(n, len(plan))])
		low, high, fewest := n, 0, n
		for _, m := range all {
			low, high = min(low, count[m.ID]), max(high, count[m.ID])
			fewest -= min(count[m.ID], had[m.ID])
		}
		if high-low > 1 {
			t.Fatalf("%d partitions over %v: %v", n, all, count)
		}
		// With these loads nobody can keep more than the smaller of what they had and have.
		if got := moves(plan, next); got != fewest {
			t.Fatalf("%d moves, %d would do: %v to %v", got, fewest, plan, next)
		}
		slices.Reverse(all)
		if !slices.Equal(next, placement.Plan(n, plan, all)) {
			t.Fatalf("the order of the members matters")
		}
		if moves(next, placement.Plan(n, next, all)) != 0 {
			t.Fatalf("a plan that stands is changed")
		}
		plan = next
	}
}

// TestFewestMovesOfAll: no even plan at all needs fewer moves, for small numbers by trying
// every way to spread what is left over.
func TestFewestMovesOfAll(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		n, all := 1+random.IntN(20), members(1+random.IntN(6))
		now := make([]string, n)
		for p := range now {
			now[p] = fmt.Sprint("m", random.IntN(8))
		}
		had, got := loads(now), moves(now, placement.Plan(n, now, all))
		best := n
		for extra := range 1 << len(all) {
			kept, sum := 0, 0
			for i, m := range all {
				quota := n/len(all) + extra>>i&1
				kept, sum = kept+min(quota, had[m.ID]), sum+quota
			}
			if sum == n {
				best = min(best, n-kept)
			}
		}
		if got != best {
			t.Fatalf("%d moves for %v over %d, %d would do", got, now, len(all), best)
		}
	}
}

func TestWeightsAndPriorities(t *testing.T) {
	all := []placement.Member{{ID: "a", Weight: 1}, {ID: "b", Weight: 3}, {ID: "c", Weight: 0}, {ID: "standby", Weight: 9, Priority: -1}}
	plan := placement.Plan(100, nil, all)
	if got := loads(plan); got["a"] != 20 || got["b"] != 60 || got["c"] != 20 || got["standby"] != 0 {
		t.Errorf("loads are %v", got)
	}
	plan = placement.Plan(100, plan, all[3:])
	if got := loads(plan); got["standby"] != 100 {
		t.Errorf("loads are %v: want all on the one that is left", got)
	}
	if got := loads(placement.Plan(5, plan, nil)); got[""] != 5 {
		t.Errorf("without members: %v", got)
	}
}
