package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/holdfast-go/holdfast/examples/invoices/internal/strategy"
	"github.com/holdfast-go/holdfast/examples/invoices/report"
)

// scenario is a row of the report: a strategy, on an engine.
type scenario struct {
	strategy string
	engine   *engine
	settings string // behind the engine's URL, beside those of every scenario on it
	note     string

	fault        fault // what --failover does; nil: what the engine has for that
	onlyFailover bool  // there is no more to see without it than in another scenario
}

// scenarios are in the order of the article.
var scenarios = []scenario{
	{strategy: "none", engine: noEngine, fault: killInstance},
	{strategy: "local", engine: noEngine, fault: killInstance},
	{strategy: "sequence", engine: onSentinel},
	{strategy: "unfenced", engine: onRedis, note: articleNote, fault: breakEngineAtWork},
	{strategy: "unfenced", engine: onSentinel, settings: "&failover-grace=off", note: articleNote, fault: breakEngineAtWork},
	{strategy: "unfenced", engine: onSentinel, note: articleNote, fault: freezeHolder, onlyFailover: true},
	{strategy: "mutex", engine: onRedis, fault: breakEngineAtWork,
		note: "the server forgets its locks in a restart, and two hold it for a moment: the fence keeps the one that was first out of the way of the other"},
	{strategy: "mutex", engine: onSentinel, note: graceNote},
	{strategy: "mutex", engine: onSentinel, note: graceNote, fault: freezeHolder, onlyFailover: true},
	{strategy: "mutex", engine: onRedlock},
	{strategy: "counter", engine: onSentinel, note: "made for counting requests: what a failover loses is given again"},
	{strategy: "mutex", engine: onPostgres},
	{strategy: "mutex", engine: onMariaDB},
	{strategy: "mutex", engine: onZooKeeper},
	{strategy: "mutex", engine: onEtcd},
	{strategy: "version", engine: noEngine, fault: killInstance, note: "no lock: who was overtaken tries again"},
}

const articleNote = "the article's lock: taken, the number read, one added, written, given back, and nothing asks whether it is still held"

const graceNote = "after a failover nobody new gets the lock before every old lease has ended: max-ttl is 2 s here, by default it is 30 s"

func engineNames() []string {
	var all []string
	for _, s := range scenarios {
		if !slices.Contains(all, s.engine.name) {
			all = append(all, s.engine.name)
		}
	}
	return all
}

func strategyNames() []string {
	var all []string
	for _, k := range strategy.All {
		all = append(all, k.Name)
	}
	return all
}

// title is how progress and errors call a scenario.
func (s scenario) title() string { return s.strategy + " on " + s.engine.title }

// promises returns an error for every row that broke what its strategy promises.
func promises(r report.Report) error {
	var broken []error
	for _, row := range r.Rows {
		kind, err := strategy.Named(row.Strategy)
		if err != nil {
			return err
		}
		if kind.Unique && row.Duplicates > 0 || kind.Gapless && row.Gaps > 0 {
			broken = append(broken, fmt.Errorf("%s: %d duplicates and %d gaps must not be", row.Title(), row.Duplicates, row.Gaps))
		}
	}
	return errors.Join(broken...)
}
