package protocol

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// read reads answers: words of a node, '.' for one that failed, ” for one that is awaited.
func read(words string, span int) (all []Answer) {
	for w := range strings.SplitSeq(words, ",") {
		all = append(all, Parse(w, span))
	}
	return all
}

func TestAcquired(t *testing.T) {
	for _, c := range []struct {
		answers string
		result  Result
		last    int64
		span    int
	}{
		{",,,,", Undecided, 0, 0},
		{"7,7,,,", Undecided, 0, 0},
		{"7,7,7,,", Won, 9, 3},
		{"7,h5,7,.,7", Won, 9, 3},
		{"9/1,7,7,,", Won, 9, 1}, // the last number is the same, the span is what all have
		{"9/1,7,8,,", Split, 10, 1},
		{"7,8,9,,", Split, 11, 3},
		{"7,8,7,7,h5", Won, 9, 3},
		{"7,7,h5,h5,", Undecided, 0, 0},
		{"7,7,h5,h5,h5", Conflicted, 0, 0},
		{"7,h5,h5,.,", Conflicted, 0, 0},
		{".,.,f,,", NoQuorum, 0, 0},
		{"w30,.,!,7,7", NoQuorum, 0, 0},
		{".,.,h5,7,", Conflicted, 0, 0},
		{"e,e,e,,", Moved, 0, 0},
		{"e,e,.,7,", Moved, 0, 0},
		{"e,h5,h5,,", Conflicted, 0, 0},
	} {
		if r, last, span := Quorum(5).Acquired(read(c.answers, 3)); r != c.result || last != c.last || span != c.span {
			t.Errorf("Acquired(%s) = %v %d %d, want %v %d %d", c.answers, r, last, span, c.result, c.last, c.span)
		}
	}
}

func TestVouchedAndRenewal(t *testing.T) {
	for _, c := range []struct {
		answers string
		vouched Result
		renewed Verdict
	}{
		{"=,=,,,", Undecided, Unsure},
		{"=,=,=,,", Won, Renewed},
		{"=,c7,=,-,=", Won, Renewed},
		{"-,c7,-,=,=", Conflicted, Lost},
		{"-,c7,.,=,=", Conflicted, Unsure},
		{"-,c7,f,,", Conflicted, Lost},
		{"w9,f,-,,", Conflicted, Lost},
		{".,.,.,=,=", NoQuorum, Unsure},
		{"e,e,e,=,=", Moved, Unsure},
	} {
		if r := Quorum(5).Vouched(read(c.answers, 1)); r != c.vouched {
			t.Errorf("Vouched(%s) = %v, want %v", c.answers, r, c.vouched)
		}
		if v := Quorum(5).Renewal(read(c.answers, 1)); v != c.renewed {
			t.Errorf("Renewal(%s) = %v, want %v", c.answers, v, c.renewed)
		}
	}
}

func TestMajoritiesShareANode(t *testing.T) {
	for q := Quorum(1); q <= 9; q++ {
		if 2*q.Majority() <= int(q) {
			t.Errorf("two majorities of %d may have no node in common", q)
		}
		if q.Majority()+q.Blocking() <= int(q) {
			t.Errorf("%d of %d nodes are not in every majority", q.Blocking(), q)
		}
	}
}

// nodesOf reads nodes: state and epoch, ” for one that did not answer.
func nodesOf(list string) (all []NodeStatus) {
	for s := range strings.SplitSeq(list, ",") {
		n := NodeStatus{}
		if s != "" {
			n.State, n.Epoch = NodeState(s[0]), s[1:]
		}
		all = append(all, n)
	}
	return all
}

func TestNeeds(t *testing.T) {
	for _, c := range []struct {
		nodes string
		care  Care
	}{
		{"sA,sA,gA,sA,sA", AllWell},
		{"sA,sA,sA,,", AllWell},
		{"sA,sA,sA,f-f1,v-v1", Heal},
		{"sA,sA,gB,sA,sA", Heal},
		{"sA,sB,sC,v-v1,", Heal},
		{"sA,sA,f-f1,,", Waiting},
		{"sA,sA,f-f1,f-f2,", Waiting},
		{"sA,sA,f-f1,f-f2,v-v1", Operator},
		{"f-f1,f-f2,f-f3,f-f4,f-f5", Operator},
		{"v-v1,v-v2,v-v3,v-v4,v-v5", Found},
		{"v-v1,v-v2,v-v3,v-v4,", Waiting},
		{"v-v1,v-v2,v-v3,v-v4,sA", Operator},
		{"v-v1,v-v2,v-v3,v-v4,f-f1", Operator},
	} {
		if got := Quorum(5).Needs(nodesOf(c.nodes)); got != c.care {
			t.Errorf("Needs(%s) = %v, want %v", c.nodes, got, c.care)
		}
	}
}

func TestEpochFloorFoundation(t *testing.T) {
	q := Quorum(5)
	for nodes, want := range map[string]string{"sA,sA,gA,sB,sB": "A", "sA,sA,sB,sB,": "", "sA,sA,f-f1,f-f1,f-f1": "", ",,,,": ""} {
		var heads []NodeHead
		for _, n := range nodesOf(nodes) {
			heads = append(heads, n.NodeHead)
		}
		if got := q.Epoch(heads); got != want {
			t.Errorf("Epoch(%s) = %q, want %q", nodes, got, want)
		}
	}
	raised := []NodeStatus{{Top: 5}, {Top: 9}, {Top: 7}}
	if floor, enough := q.Floor(raised); floor != 9 || !enough {
		t.Errorf("Floor = %d %v, want 9 true", floor, enough)
	}
	if _, enough := q.Floor(raised[:2]); enough {
		t.Error("two of five nodes are enough for a floor")
	}
	all := nodesOf("v-v1,f-f1,")
	all[0].Micros, all[1].Top = 1_000_000, 8_000_000_000
	if got := Foundation(all); got != 8_000_000_000 {
		t.Errorf("Foundation = %d, want the largest number that is known", got)
	}
	all[1].Top = 0
	if got, want := Foundation(all), int64(1_000_000+3600_000_000); got != want {
		t.Errorf("Foundation = %d, want %d: what the clock allowed", got, want)
	}
}

func TestReplies(t *testing.T) {
	if h, words, err := ParseHead("sE1 7 = c9"); err != nil || h != (NodeHead{Serving, "E1"}) || words != "7 = c9" {
		t.Errorf("ParseHead = %+v %q %v", h, words, err)
	}
	for _, bad := range []string{"", "s", "sE1", "s 7"} {
		if _, _, err := ParseHead(bad); err == nil {
			t.Errorf("ParseHead(%q) has no error", bad)
		}
	}
	s, done, err := ParseStatus([]string{"done", "g", "E2", "7", "20", "9", "30000 5 g", "ab"})
	want := NodeStatus{NodeHead{Grace, "E2"}, 7, 20 * time.Millisecond, 9, "30000 5 g", "ab"}
	if err != nil || !done || s != want {
		t.Errorf("ParseStatus = %+v %v %v", s, done, err)
	}
	for _, bad := range [][]string{nil, {"done"}, {"done", "g", "E2", "x", "20", "9", "", "ab"}, {"done", "", "E2", "7", "20", "9", "", "ab"}} {
		if _, _, err := ParseStatus(bad); err == nil {
			t.Errorf("ParseStatus(%q) has no error", bad)
		}
	}
}

func TestOrderAndPause(t *testing.T) {
	firsts := map[int]bool{}
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "invoice:2026"} {
		order := Quorum(5).Order(name)
		firsts[order[0]] = true
		if !slices.Equal(order, Quorum(5).Order(name)) {
			t.Errorf("the order of %q is not fixed", name)
		}
		slices.Sort(order)
		if !slices.Equal(order, []int{0, 1, 2, 3, 4}) {
			t.Errorf("the order of %q is not one of all nodes: %v", name, order)
		}
	}
	if len(firsts) < 3 {
		t.Errorf("names begin with the nodes %v only", firsts)
	}
	for n := range 100 {
		if p := Pause(n+1, time.Millisecond); p < 0 || p > time.Second {
			t.Errorf("pause %v after %d collisions", p, n+1)
		}
	}
}

func TestLeft(t *testing.T) {
	at := driver.Instant(5 * time.Second)
	if got, want := Left(at, at.Add(time.Second), 10*time.Second), 9*time.Second-102*time.Millisecond; got != want {
		t.Errorf("Left = %v, want %v", got, want)
	}
}
