package redislock_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
)

// TestClusterCountsBesideAFrozenNode: steps that go out together do not wait for each other's
// nodes. What is counted on nodes that answer is counted, whatever the others do.
func TestClusterCountsBesideAFrozenNode(t *testing.T) {
	t.Parallel()
	x := newCluster(t, testserver.ClusterOptions{})
	e := x.engine(ungated)
	frozen := x.Node(0)
	var steps []driver.Count
	var there []bool // on the node that is to freeze
	for i := range 40 {
		name := fmt.Sprint("n", i)
		steps = append(steps, driver.Count{Name: name, Rule: driver.Window, N: 1, Window: time.Hour})
		there = append(there, x.Node(testserver.Slot(redislock.DefaultPrefix+name)) == frozen)
	}
	if !slices.Contains(there, true) || !slices.Contains(there, false) {
		t.Fatal("all names are on one side")
	}
	for _, a := range e.Count(t.Context(), steps) { // every node is known and connected
		if a.Err != nil {
			t.Fatal(a.Err)
		}
	}
	frozen.Pause()
	defer frozen.Resume()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	for i, a := range e.Count(ctx, steps) {
		if (a.Err != nil) != there[i] {
			t.Errorf("%s, on the frozen node %v: %v", steps[i].Name, there[i], a.Err)
		}
	}
}
