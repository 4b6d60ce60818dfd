package model

import (
	"testing"
	"time"
)

func queue(n int, ttl time.Duration, flaws Flaws) *Queue {
	return &Queue{Clients: n, TTL: ttl, Tick: second, Flaws: flaws}
}

func TestQueueBugs(t *testing.T) {
	failing := queue(3, 2*second, PublishFirst)
	failing.Failing = true
	deaf := queue(3, 2*second, TakeBack)
	deaf.Deaf = true
	for _, c := range []struct {
		name string
		w    *Queue
	}{
		{"DeadlineOfAPushFromItsReceipt", queue(2, 2*second, DeadlineFromReceipt)},
		{"AnyPushIsBelieved", queue(3, 2*second, AnyPush)},
		{"GrantedAgainWithTheOldTTL", queue(2, 2*second, OldTTL)},
		{"PublishedBeforeItIsEntered", failing},
		{"TakenBackAsNobodyListensHere", deaf},
		{"TokenOfTheLastCall", queue(2, 2*second, TokenAgain)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			found(t, c.w, "two holders")
		})
	}
}

func TestQueue(t *testing.T) {
	for _, c := range []struct {
		name string
		long bool
		w    Queue
	}{
		{"TwoClients", false, Queue{Clients: 2, TTL: 3 * second, Ahead: true, Doubled: true, Stray: true}},
		{"OtherLibraryAndOffer", false, Queue{Clients: 2, TTL: 4 * second, Foreign: true}},
		{"DeafAndFailing", false, Queue{Ahead: true, Clients: 2, TTL: 2 * second, Deaf: true, Failing: true}},
		{"ThreeClientsShortWays", true, Queue{Ahead: true, Clients: 3, TTL: 2 * second, Doubled: true, Stray: true}},
		{"ThreeClientsDeafShortWays", true, Queue{Ahead: true, Clients: 3, TTL: 2 * second, Deaf: true}},
		{"TwoClientsAnything", true, Queue{Clients: 2, TTL: 4 * second, Doubled: true, Stray: true, Deaf: true, Failing: true, Foreign: true}},
		{"ThreeClients", true, Queue{Clients: 3, TTL: 3 * second, Doubled: true, Stray: true}},
		{"ThreeClientsDeaf", true, Queue{Clients: 3, TTL: 2 * second, Doubled: true, Deaf: true, Failing: true}},
		{"ThreeClientsOtherLibrary", true, Queue{Clients: 3, TTL: 2 * second, Foreign: true}},
		{"HalfSeconds", true, Queue{Clients: 2, TTL: 3 * second, Tick: second / 2, Doubled: true, Stray: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.long {
				whole(t)
			} else {
				t.Parallel()
			}
			if c.w.Tick == 0 {
				c.w.Tick = second
			}
			safe(t, &c.w, 20_000_000)
		})
	}
}
