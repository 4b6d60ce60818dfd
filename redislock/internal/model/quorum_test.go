package model

import (
	"testing"

	"github.com/holdfast-go/holdfast/redislock/internal/protocol"
)

func tries(n int, k Try) (all []Try) {
	for range n {
		k.Span = max(k.Span, 1)
		all = append(all, k)
	}
	return all
}

var (
	plain2, plain3 = tries(2, Try{}), tries(3, Try{})
	spans2         = tries(2, Try{Clock: 4, Span: 3})
)

// forgetting is a quorum whose nodes forget.
func forgetting(nodes int, all []Try, forgets, healers int) Quorum {
	return Quorum{Nodes: protocol.Quorum(nodes), Tries: all, Forgets: forgets, Healers: healers}
}

func TestQuorumBugs(t *testing.T) {
	three := Quorum{Nodes: 3, Tries: plain3}
	copied := Quorum{Nodes: 3, Tries: plain3, Copies: 1}
	renewed := Quorum{Nodes: 3, Tries: plain2, Renews: 1}
	timed := Quorum{Nodes: 3, Tries: plain2, TTL: second, Tick: second}
	for _, c := range []struct {
		name  string
		w     Quorum
		bug   QuorumFlaws
		wrong uint8
	}{
		{"NoSecondRound", three, NoSecondRound, duplicate},
		{"UnconditionalVouch", three, VouchUnconditionally, duplicate},
		{"VouchByTokenAndACopy", copied, VouchByToken, duplicate},
		{"RenewalByToken", renewed, RenewByToken, revival},
		{"RenewalTakesBack", renewed, RenewTakesBack, revival},
		{"OneTokenForTwoAttempts", three, OneToken, duplicate},
		{"MinorityIsEnough", three, Minority, disorder},
		{"MoveWhateverWasSince", Quorum{Nodes: 3, Tries: plain2, Moves: true, Copies: 1}, MoveWhateverWasSince, duplicate},
		{"SpanCountsOnce", Quorum{Nodes: 3, Tries: spans2}, SpanCountsOnce, disorder},
		{"CountersRunOut", Quorum{Nodes: 3, Tries: plain2, RunOut: true}, CountersRunOut, disorder},
		{"ForgetsWithoutEpoch", forgetting(3, plain2, 1, 0), NoEpoch, disorder},
		{"ReseededWithoutEpoch", forgetting(3, plain2, 1, 1), ReseedWithoutEpoch, disorder},
		{"SeedAfterTooFew", forgetting(3, plain2, 1, 1), SeedAfterTooFew, disorder},
		{"EpochsMix", forgetting(3, plain2, 1, 1), EpochsMix, duplicate},
		{"RaiseWithoutComparing", Quorum{Nodes: 3, Tries: plain2, Healed: true, Forgets: 1, Healers: 2}, RaiseWithoutComparing, disorder},
		{"SeedWithoutComparing", Quorum{Nodes: 3, Tries: plain2, Healed: true, Forgets: 1, Healers: 1}, SeedWithoutComparing, disorder},
		{"NoGraceForSeeded", func() Quorum { w := timed; w.Forgets, w.Healers = 1, 1; return w }(), NoGraceForSeeded, together},
		{"LeaseFromAnswer", timed, LeaseFromAnswer, together},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.bug == RaiseWithoutComparing {
				whole(t)
			} else {
				t.Parallel()
			}
			c.w.Flaws = c.bug
			c.w.AtOnce = true
			found(t, &c.w, wrongs[c.wrong])
		})
	}
}

func TestQuorum(t *testing.T) {
	timed := Quorum{Nodes: 3, Tries: plain2, Renews: 1, TTL: 2 * second, Tick: second}
	restarted := timed
	restarted.Forgets, restarted.Healers, restarted.AtOnce = 1, 1, true
	ahead := forgetting(3, plain2, 1, 1)
	ahead.Ahead = 2
	for _, c := range []struct {
		name string
		long bool
		w    Quorum
	}{
		{"Copies", false, Quorum{Nodes: 3, Tries: plain2, Copies: 1}},
		{"Renewals", false, Quorum{Nodes: 3, Tries: plain2, Renews: 2}},
		{"Moves", false, Quorum{Nodes: 3, Tries: plain2, Moves: true}},
		{"MovesAndCopies", true, Quorum{Nodes: 3, Tries: plain2, Moves: true, Renews: 1, Copies: 1}},
		{"Spans", false, Quorum{Nodes: 3, Tries: spans2, Clamps: true}},
		{"CountersRunOut", false, Quorum{Nodes: 3, Tries: plain2, RunOut: true}},
		{"FourNodes", false, Quorum{Nodes: 4, Tries: plain2}},
		{"FiveNodes", false, Quorum{Nodes: 5, Tries: plain2}},
		{"Forgets", false, forgetting(3, plain2, 1, 1)},
		{"ForgetsWithTopAhead", false, ahead},
		{"CountersRunOutWithTopAhead", false, Quorum{Nodes: 3, Tries: plain2, RunOut: true, Ahead: 2}},
		{"Leases", false, timed},
		{"LeasesOfThree", true, Quorum{Nodes: 3, Tries: plain3, TTL: second, Tick: second}},
		{"LeasesAndARestart", false, Quorum{Nodes: 3, Tries: plain2, TTL: second, Tick: second, Forgets: 1, Healers: 1, AtOnce: true}},
		{"ThreeAttempts", true, Quorum{Nodes: 3, Tries: plain3}},
		{"ThreeAttemptsCopies", true, Quorum{Nodes: 3, Tries: plain3, Copies: 1}},
		{"ThreeAttemptsRenewals", true, Quorum{Nodes: 3, Tries: plain3, Renews: 1}},
		{"RenewalsAndCopies", true, Quorum{Nodes: 3, Tries: plain2, Renews: 2, Copies: 2}},
		{"SpansAndCopies", true, Quorum{Nodes: 3, Tries: spans2, Clamps: true, Copies: 2}},
		{"CountersRunOutAndCopies", true, Quorum{Nodes: 3, Tries: plain2, RunOut: true, Copies: 1, Renews: 1}},
		{"FiveNodesCopies", true, Quorum{Nodes: 5, Tries: plain2, Copies: 1}},
		{"FourNodesForget", true, Quorum{Nodes: 4, Tries: plain2, Forgets: 1, Healers: 1, AtOnce: true}},
		{"StaleData", true, Quorum{Nodes: 3, Tries: plain2, Forgets: 1, Stale: true, Healers: 1}},
		{"ForgetsAndRenewals", true, Quorum{Nodes: 3, Tries: plain2, Renews: 1, Forgets: 1, Healers: 1, AtOnce: true}},
		{"ForgetsAndCopies", true, Quorum{Nodes: 3, Tries: plain2, Copies: 1, Forgets: 1, Healers: 1, AtOnce: true}},
		{"TwoHealers", true, Quorum{Nodes: 3, Tries: plain2, Forgets: 1, Healers: 2, AtOnce: true}},
		{"TwoForget", true, Quorum{Nodes: 3, Tries: plain2, Forgets: 2, Healers: 2, AtOnce: true}},
		{"LeasesAndARestartRenewed", true, restarted},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.long {
				whole(t)
			} else {
				t.Parallel()
			}
			safe(t, &c.w, 60_000_000)
		})
	}
}
