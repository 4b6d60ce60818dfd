package model

import (
	"fmt"
	"strings"
)

// Say implements World.
func (w *Failover) Say(step Step, after *FailoverState) string {
	client, node := string(rune('X'+step.A)), string(rune('A'+step.B))
	var what string
	switch step.Verb {
	case "tick":
		what = fmt.Sprintf("%v passes", w.Tick)
	case "promote":
		what = fmt.Sprintf("%c is promoted", 'A'+step.A)
	case "restart":
		what = fmt.Sprintf("%c restarts%s", 'A'+step.A, [...]string{"", " without the locks", " without the epoch", " without anything"}[step.B])
	case "follow":
		what = fmt.Sprintf("%c turns to %s", 'A'+step.A, node)
	case "copy":
		what = fmt.Sprintf("%c catches up with %s", 'A'+step.A, node)
	case "ack":
		what = fmt.Sprintf("the last acknowledgement of %c reaches %s", 'A'+step.A, node)
	case "moved", "moved and deleted", "moved with its keys":
		what = fmt.Sprintf("the slot is %s, from %c to %s", step.Verb, 'A'+step.A, node)
	case "hear":
		what = client + ": is answered by " + node + " about another slot"
	case "give up", "send":
		what = client + ": " + step.Verb
	default:
		what = client + ": " + step.Verb + " at " + node
	}
	var b strings.Builder
	for i := range w.Nodes {
		n := &after.nodes[i]
		role := 'r'
		if n.master {
			role = 'M'
		}
		fmt.Fprintf(&b, " %c%c%d%v e%d+%d a%v", 'A'+i, role, n.term, n.has.ends[:len(w.Clients)], n.has.epoch, n.has.age, n.acks[:w.Nodes])
	}
	for c := range w.Clients {
		if k := &after.clients[c]; k.left > 0 {
			fmt.Fprintf(&b, " %c HOLDS for %d", 'X'+c, k.left)
		}
	}
	return fmt.Sprintf("%-45s%s", what, b.String())
}
