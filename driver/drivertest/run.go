package drivertest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"text/tabwriter"

	"github.com/holdfast-go/holdfast/driver"
)

// testCase checks one sentence of the contract.
type testCase struct {
	name     string // the sentence's name in the contract
	sentence string
	needs    []ability
	run      func(*env)
}

// ability is what an engine may lack.
type ability struct {
	name string
	of   func(driver.Engine) bool
}

var (
	shared        = ability{"Shared", func(e driver.Engine) bool { return e.Capabilities().Shared }}
	upgradeable   = ability{"Upgradeable", func(e driver.Engine) bool { return e.Capabilities().Upgradeable }}
	permits       = ability{"Permits", func(e driver.Engine) bool { return e.Capabilities().Permits }}
	expires       = ability{"Expires", func(e driver.Engine) bool { return e.Capabilities().Expires }}
	fifo          = ability{"FIFO", func(e driver.Engine) bool { return e.Capabilities().FIFO }}
	holders       = ability{"Holders", func(e driver.Engine) bool { return e.Capabilities().Holders }}
	asyncReleaser = ability{"AsyncReleaser", func(e driver.Engine) bool { _, ok := e.(driver.AsyncReleaser); return ok }}
	passer        = ability{"Passer", func(e driver.Engine) bool { _, ok := e.(driver.Passer); return ok }}
	inspector     = ability{"Inspector", func(e driver.Engine) bool { _, ok := e.(driver.Inspector); return ok }}
	values        = ability{"Values", func(e driver.Engine) bool { _, ok := e.(driver.Values); return ok }}
	counters      = ability{"Counters", func(e driver.Engine) bool { _, ok := e.(driver.Counters); return ok }}
)

// cases holds one case for each sentence, in the order of the contract.
var cases = slices.Concat(
	exclusionCases, acquireCases, upgradeCases, orderCases, fenceCases, lifetimeCases,
	releaseCases, closingCases, asyncCases, passCases, inspectorCases, valueCases, counterCases,
)

// missing returns the abilities that c needs and e lacks.
func (c *testCase) missing(e driver.Engine) []string {
	var names []string
	for _, a := range c.needs {
		if !a.of(e) {
			names = append(names, a.name)
		}
	}
	return names
}

// Run checks that the engine of h keeps the contract, in one subtest a sentence.
func Run(t *testing.T, h Harness) {
	t.Helper()
	probe := h.New(t).Open()
	defer probe.Close()
	caps := probe.Capabilities()
	h = h.withDefaults(caps)
	if caps.Engine == "" || caps.Scope == "" || caps.Safety == "" || caps.FenceSource == "" {
		t.Fatalf("the capabilities leave out the engine's name, scope, safety or fence source: %+v", caps)
	}
	if h.TTL < caps.MinTTL || h.TTL > caps.MaxTTL {
		t.Fatalf("Harness.TTL is %v: %s takes %v to %v", h.TTL, caps.Engine, caps.MinTTL, caps.MaxTTL)
	}
	var skipped []skip
	for _, c := range cases {
		if lacks := c.missing(probe); len(lacks) > 0 {
			skipped = append(skipped, skip{c.name, lacks})
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if h.FakeTime {
				synctest.Test(t, func(t *testing.T) { c.run(newEnv(t, h)) })
				return
			}
			c.run(newEnv(t, h))
		})
	}
	// Cleanup, because parallel subtests run when this function is over.
	t.Cleanup(func() { t.Log(skipTable(caps.Engine, len(cases), skipped)) })
}

// skip is a case that did not run, and the abilities that it needs and the engine does not
// declare.
type skip struct {
	name  string
	lacks []string
}

func skipTable(engine string, total int, skipped []skip) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s: %d of %d cases ran\n", engine, total-len(skipped), total)
	if len(skipped) == 0 {
		return text.String()
	}
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "skipped\tnot declared")
	for _, s := range skipped {
		fmt.Fprintf(w, "%s\t%s\n", s.name, strings.Join(s.lacks, ", "))
	}
	w.Flush()
	return text.String()
}
