package model

import (
	"os"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

const second = time.Second

func clients(n int, k Client) (all []Client) {
	for range n {
		k.Weight = max(k.Weight, 1)
		all = append(all, k)
	}
	return all
}

var (
	brief  = Client{Mode: 'x', Weight: 1, TTL: second}
	longer = Client{Mode: 'x', Weight: 1, TTL: 2 * second}
)

// failover is a deployment with the settings that make for few states.
func failover(nodes, promotions int, lag time.Duration, all []Client) Failover {
	w := Failover{Nodes: nodes, Promotions: promotions, Clients: all, Tick: second}
	w.Limits = protocol.Constants{Replicas: protocol.Majority(nodes), Lag: lag}
	for _, c := range all {
		w.Limits.MaxTTL = max(w.Limits.MaxTTL, c.TTL)
	}
	return w
}

// slots is a Cluster of two masters without replicas that are waited for.
func slots(moves, restarts int, all []Client) Failover {
	w := failover(2, 0, 0, all)
	w.Limits.Replicas = 0
	w.Slots, w.Moves, w.Restarts, w.Known = true, moves, restarts, true
	return w
}

// found searches a world with a bug in it and tells how it goes wrong.
func found[S comparable](t *testing.T, w World[S], wrong string) {
	t.Helper()
	r := Explore(w, 4_000_000)
	t.Logf("%v\n%s", r, r.Story())
	if r.Wrong != wrong {
		t.Errorf("found %q, want %q: the search is blind for this bug", r.Wrong, wrong)
	}
}

// safe searches a world to its end.
func safe[S comparable](t *testing.T, w World[S], most int) {
	t.Helper()
	r := Explore(w, most)
	t.Log(r)
	if r.Wrong != "" || !r.Whole {
		t.Errorf("%v\n%s", r, r.Story())
	}
}

// whole skips what takes minutes unless it was asked for.
func whole(t *testing.T) {
	if os.Getenv("HOLDFAST_CROWD") == "" {
		t.Skip("takes long: `make verify` runs it")
	}
}

func TestFailoverBugs(t *testing.T) {
	x2, x3 := clients(2, longer), clients(3, longer)
	late := clients(2, Client{Mode: 'x', TTL: 2 * second, Late: true})
	for _, c := range []struct {
		name string
		w    Failover
		bug  Flaws
	}{
		{"MissingEpochIsNoGrace", failover(3, 1, second, x2), MissingIsOpen},
		{"MissingEpochIsNoGraceForStrangers", failover(3, 1, second, x2), OpenToStrangers},
		{"RunIDAsEpoch", failover(3, 2, 0, x2), RunIDAsTerm},
		{"NoReplicaCheck", failover(3, 1, second, x2), NoReplicas},
		{"GraceIsMaxTTL", failover(3, 1, second, x2), GraceOfMaxTTL},
		{"SilenceWithoutResolutionAndDelay", failover(3, 1, second, x2), ShortSilence},
		{"NoQuietPhase", failover(3, 1, second, x2), NoQuietPhase},
		{"RenewalSkipsGate", failover(3, 1, second, x2), RenewalSkipsGate},
		{"TooFewReplicas", failover(5, 1, 0, clients(2, brief)), FewReplicas},
		{"OldAcksCount", failover(3, 1, 0, clients(2, brief)), OldAcksCount},
		{"GraceInAKeyOfItsOwn", failover(3, 1, second, x2), OwnGraceKey},
		{"ReassertionOverwrites", failover(3, 1, 0, append(late[:1:1], x2...)), ReassertOverwrites},
		{"RepeatedReleaseHandsOver", failover(3, 1, 0, x3), HandOverInGrace},
		{"LateAnswerRevives", failover(3, 1, 0, append(late[:1:1], longer)), LateRevives},
		{"ReplicaGoesBack", failover(3, 1, second, x2), Reattach},
		{"KnownFromAMasterThatIsCutOff", failover(3, 1, 0, clients(2, brief)), TermWhenCutOff},
		{"SlotMovedWithoutItsKeys", slots(1, 0, clients(2, brief)), MovedWithoutKeys},
		{"SlotMovedWithoutItsKeysAndBack", slots(2, 0, clients(2, brief)), MovedWithoutKeys},
		{"SlotMovedAfterAFailover", slots(1, 1, clients(2, brief)), MovedEarly},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.w.Flaws = c.bug
			c.w.Chained = c.bug == OldAcksCount
			c.w.Queue = c.bug == HandOverInGrace
			c.w.Known = c.bug == TermWhenCutOff || c.w.Slots && c.name != "SlotMovedWithoutItsKeysAndBack"
			found(t, &c.w, "two holders")
		})
	}
}

// scenario is a search for something wrong that must end without. Those with long are those
// of `make verify`.
type scenario struct {
	name string
	long bool
	w    Failover
}

func with(w Failover, change func(*Failover)) Failover {
	change(&w)
	return w
}

func scenarios() []scenario {
	x2, x3 := clients(2, longer), clients(3, longer)
	late := func(n int) []Client { return clients(n, Client{Mode: 'x', TTL: 2 * second, Late: true}) }
	brief2, brief3 := clients(2, brief), clients(3, brief)
	permits := clients(3, Client{Mode: 'p', TTL: second})
	readers := append(clients(2, Client{Mode: 's', TTL: second}), brief)
	uneven := []Client{brief, {Mode: 'x', Weight: 1, TTL: 3 * second}}
	dead := func(w *Failover) { w.Limits.Replicas, w.OldDies = 0, true }
	chained := func(w *Failover) { w.Chained = true }
	queue := func(w *Failover) { w.Queue = true }
	known := func(w *Failover) { w.Known = true }
	acks := func(w *Failover) { w.AckStep = true }
	halves := func(w *Failover) { w.Tick = second / 2 }
	heavy := append(clients(2, Client{Mode: 'p', TTL: second}), Client{Mode: 'p', Weight: 2, TTL: second})
	return []scenario{
		{"OldMasterDead", false, with(failover(2, 2, 0, x2), dead)},
		{"OldMasterDeadAndRestarts", false, with(with(failover(2, 2, 0, x2), dead), func(w *Failover) { w.Restarts = 2 })},
		{"OldMasterDeadAndLate", false, with(with(failover(2, 2, 0, late(2)), dead), func(w *Failover) { w.Restarts = 1 })},
		{"OldMasterDeadLongRun", true, with(with(failover(2, 3, 0, late(2)), dead), func(w *Failover) { w.Restarts = 2 })},
		{"OldMasterLives", false, failover(3, 1, second, x2)},
		{"TwoPromotions", false, failover(3, 2, 0, x2)},
		{"ThreePromotions", true, failover(3, 3, second, x2)},
		{"ThreeClients", false, failover(3, 1, second, x3)},
		{"ThreeClientsTwoPromotions", true, failover(3, 2, second, x3)},
		{"Late", false, failover(3, 1, 0, late(2))},
		{"LateThreeClients", true, failover(3, 1, second, late(3))},
		{"LateTwoPromotions", true, failover(3, 2, second, late(2))},
		{"UnevenTTLs", false, failover(3, 1, 0, uneven)},
		{"UnevenTTLsTwoPromotions", true, failover(3, 2, second, uneven)},
		{"Restart", false, with(failover(3, 1, 0, brief2), func(w *Failover) { w.Restarts = 1 })},
		{"RestartsLongRun", true, with(failover(3, 2, second, x2), func(w *Failover) { w.Restarts = 2 })},
		{"Chained", true, with(failover(3, 2, second, brief2), chained)},
		{"AcknowledgementsUnderWay", false, with(failover(3, 1, second, x2), acks)},
		{"AcknowledgementsUnderWayTwoPromotions", true, with(failover(3, 2, second, x2), acks)},
		{"HalfSeconds", false, with(failover(3, 1, 0, brief2), halves)},
		{"HalfSecondsTwoPromotions", true, with(with(failover(3, 2, second, x2), halves), acks)},
		{"ClocksApart", false, with(failover(3, 1, 0, x2), func(w *Failover) { w.Skew = 1 })},
		{"ClocksApartTwoPromotions", true, with(failover(3, 2, second, x2), func(w *Failover) { w.Skew = -1 })},
		{"Queue", false, with(failover(3, 1, 0, x3), queue)},
		{"QueueTwoPromotions", true, with(failover(3, 2, second, x3), queue)},
		{"FiveNodes", false, failover(5, 1, 0, brief2)},
		{"FiveNodesTwoPromotions", true, failover(5, 2, 0, brief2)},
		{"Permits", false, with(failover(3, 1, 0, permits), func(w *Failover) { w.Limit = 2 })},
		{"PermitsTwoPromotions", true, with(failover(3, 2, second, heavy), func(w *Failover) { w.Limit = 2 })},
		{"ReadersAndAWriter", false, failover(3, 1, 0, readers)},
		{"ReadersAndAWriterTwoPromotions", true, failover(3, 2, second, readers)},
		{"KnownTerms", false, with(failover(3, 1, 0, brief2), known)},
		{"KnownTermsThreeClients", true, with(failover(3, 1, second, brief3), known)},
		{"Slots", false, slots(2, 1, brief2)},
		{"SlotsOfUnknownTerms", false, with(slots(3, 1, brief2), func(w *Failover) { w.Known, w.Flaws = false, MovedEarly })},
		{"SlotsLongRun", true, slots(3, 2, x2)},
	}
}

func TestFailover(t *testing.T) {
	for _, c := range scenarios() {
		t.Run(c.name, func(t *testing.T) {
			if c.long {
				whole(t)
			} else {
				t.Parallel()
			}
			safe(t, &c.w, 20_000_000)
		})
	}
}
