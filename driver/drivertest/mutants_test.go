package drivertest

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// bug is what is wrong with a toyStore, in the words of who would report it.
type bug string

const (
	exclusiveBesideReaders bug = "an exclusive share is granted beside readers"
	readersExclude         bug = "readers exclude each other"
	twoUpgradeables        bug = "two upgradeable shares coexist"
	countsHeads            bug = "permits are counted by heads, not by weight"
	ignoresLimit           bug = "limits are not compared"
	permitsBesideReaders   bug = "permits go with readers"
	foldsNames             bug = "names are folded to lower case"
	cutsNames              bug = "names are cut after 255 bytes"
	checksThenActs         bug = "the check and the grant are two steps"
	queuesTries            bug = "a try leaves an entry in the queue"
	namesAsker             bug = "a refusal names who asked"
	wakesNobody            bug = "a release wakes nobody"
	missesArrivals         bug = "a release misses who only just joined the queue"
	sleepsThroughExpiry    bug = "an expiry wakes nobody"
	abandonsWaiter         bug = "a cancelled request is granted later"
	hidesContextError      bug = "a cancelled request ends with another error"
	blamesEngine           bug = "a cancelled wait for a holder ends as if the engine were down"
	losesGrantOnCancel     bug = "a grant is lost when the context has ended"
	ignoresDoneContext     bug = "a done context is not looked at"
	refusesRetry           bug = "a repeated request is refused"
	countsRetries          bug = "a repeated request counts twice"
	readsSentLate          bug = "Sent is read when the reply is there"
	readsSentEarly         bug = "Sent is read when the engine is opened"
	trustsWakeUp           bug = "a wake-up counts as a proof"
	upgradesBesideReaders  bug = "an upgrade does not wait for readers"
	dropsFailedUpgrade     bug = "an upgrade that is refused drops the share"
	dropsCancelledUpgrade  bug = "an upgrade that is cancelled drops the share"
	lastComeFirst          bug = "who comes last is served first"
	readersOvertake        bug = "readers overtake a waiting writer"
	repeatsFenceOnRetry    bug = "a repeated request gets its old fence"
	fenceAnewAfterExpiry   bug = "fences start anew after an expiry"
	fenceAnewAfterRelease  bug = "fences start anew after a release"
	overlapsSpan           bug = "spans overlap the next grant"
	spanTooLarge           bug = "spans are larger than asked for"
	fenceInNanoseconds     bug = "fences do not fit into 53 bits"
	ignoresTTL             bug = "the TTL is ignored"
	ignoresTTLOfReaders    bug = "the TTL of readers is ignored"
	shortensTTL            bug = "the TTL is cut short"
	renewsNothing          bug = "a renewal does nothing"
	reversesErrors         bug = "a renewal answers in reverse order"
	stopsAtFailure         bug = "a renewal stops at the first failure"
	revives                bug = "a renewal takes a free name back"
	renewsForeign          bug = "a renewal does not compare tokens"
	releasesLater          bug = "a release answers before it is done"
	releasesAnybody        bug = "a release does not compare tokens"
	repeatsRelease         bug = "a repeated release frees the next holder"
	releasesReaders        bug = "a release frees all shares of the name"
	keepsWaiting           bug = "a release does not withdraw what waits"
	worksClosed            bug = "calls go on after Close"
	leavesWaiter           bug = "Close leaves waiting calls alone"
	leavesGoroutine        bug = "Close leaves a goroutine"
	forgetsAsync           bug = "a release that nobody waits for is not made"
	overtakesAsync         bug = "a release that nobody waits for takes its time"
	closesBeforeAsync      bug = "Close does not wait for releases"
	passesNothingBack      bug = "passing on gives nothing back"
	passesAhead            bug = "what is passed on goes before who waits"
	passesAnybodys         bug = "passing on does not compare tokens"
	passesClosed           bug = "passing on goes on after Close"
	inspectsOne            bug = "Inspect shows one holder of many"
	listsFree              bug = "List shows free names"
	listsPattern           bug = "List takes the prefix for a pattern"
	breaksOne              bug = "Break takes one share of many"
	breaksAnyFence         bug = "Break does not compare fences"
	hidesBreak             bug = "a renewal after a break succeeds"
	fenceAnewAfterBreak    bug = "fences start anew after a break"
	emptyHasVersion        bug = "what is not stored has a version"
	sharesData             bug = "stored bytes are still the caller's"
	versionAnew            bug = "versions start anew after a deletion"
	deletesAnyVersion      bug = "a deletion does not compare versions"
	comparesThenWrites     bug = "comparing versions and writing are two steps"
	ignoresWriteFence      bug = "fences of writes are not compared"
	deletesData            bug = "a deletion leaves the fence"
	keepsValues            bug = "values do not expire"
	keepsFirstTTL          bug = "a write keeps the TTL of the one before"
	waitsForTheNext        bug = "a wait for a change misses those before it"
	wakesNobodyOfValues    bug = "a write wakes nobody"
	hidesAwaitError        bug = "a cancelled wait for a change sees one"
	trimsValueNames        bug = "names of values are trimmed"
	keepsValuesWithLocks   bug = "values go when the lock of their name is released"
	leavesAwait            bug = "Close leaves waits for a change alone"
	countsByAnotherClock   bug = "windows go by a clock that stands still"
	countsOnce             bug = "a step that is to be carried out many times is carried out once"
	countsBackwards        bug = "steps of a call are carried out in reverse"
	countsInTwoSteps       bug = "reading and counting are two steps"
	trimsCounterNames      bug = "names of counters are trimmed"
	countsClosed           bug = "counting goes on after Close"
)

type mutant struct {
	bug    bug
	caught string // the case that has to catch it
}

// mutants names, for every bug, the case that is there to catch it. Others may as well.
var mutants = []mutant{
	{exclusiveBesideReaders, "exclusive"},
	{readersExclude, "shared"},
	{twoUpgradeables, "upgradeable"},
	{countsHeads, "permits"},
	{ignoresLimit, "limit-mismatch"},
	{permitsBesideReaders, "kinds"},
	{foldsNames, "names"},
	{cutsNames, "names"},
	{checksThenActs, "race"},
	{queuesTries, "try"},
	{namesAsker, "holder"},
	{wakesNobody, "wait"},
	{missesArrivals, "wait"},
	{sleepsThroughExpiry, "wait-death"},
	{abandonsWaiter, "cancel"},
	{hidesContextError, "cancel"},
	{blamesEngine, "cancel"},
	{losesGrantOnCancel, "cancel-race"},
	{ignoresDoneContext, "done-context"},
	{refusesRetry, "idempotent"},
	{countsRetries, "idempotent"},
	{readsSentLate, "sent"},
	{readsSentEarly, "sent"},
	{trustsWakeUp, "waited-proof"},
	{upgradesBesideReaders, "upgrade"},
	{dropsFailedUpgrade, "upgrade-keep"},
	{dropsCancelledUpgrade, "upgrade-keep"},
	{lastComeFirst, "fifo"},
	{readersOvertake, "no-overtake"},
	{repeatsFenceOnRetry, "fence-grows"},
	{fenceAnewAfterExpiry, "fence-grows"},
	{fenceAnewAfterRelease, "fence-after-release"},
	{overlapsSpan, "fence-span"},
	{spanTooLarge, "fence-span"},
	{fenceInNanoseconds, "fence-range"},
	{ignoresTTL, "ttl"},
	{ignoresTTLOfReaders, "ttl"},
	{shortensTTL, "ttl-kept"},
	{renewsNothing, "renew"},
	{reversesErrors, "renew-order"},
	{stopsAtFailure, "renew-order"},
	{revives, "renew-lost"},
	{renewsForeign, "renew-foreign"},
	{releasesLater, "release"},
	{releasesAnybody, "release-owner"},
	{repeatsRelease, "release-repeat"},
	{releasesReaders, "release-one"},
	{keepsWaiting, "release-withdraws"},
	{worksClosed, "close"},
	{leavesWaiter, "close"},
	{leavesGoroutine, "close-leak"},
	{forgetsAsync, "async-release"},
	{overtakesAsync, "async-order"},
	{closesBeforeAsync, "async-close"},
	{passesNothingBack, "pass"},
	{passesAhead, "pass-line"},
	{passesAnybodys, "pass-owner"},
	{passesClosed, "pass-close"},
	{inspectsOne, "inspect"},
	{listsFree, "list"},
	{listsPattern, "list"},
	{breaksOne, "break"},
	{breaksAnyFence, "break-fence"},
	{hidesBreak, "break-told"},
	{fenceAnewAfterBreak, "break-order"},
	{emptyHasVersion, "value-read"},
	{sharesData, "value-write"},
	{versionAnew, "value-version"},
	{deletesAnyVersion, "value-if"},
	{comparesThenWrites, "value-race"},
	{ignoresWriteFence, "value-fence"},
	{deletesData, "value-delete"},
	{keepsValues, "value-ttl"},
	{keepsFirstTTL, "value-ttl"},
	{waitsForTheNext, "value-await"},
	{wakesNobodyOfValues, "value-await"},
	{hidesAwaitError, "value-cancel"},
	{trimsValueNames, "value-names"},
	{keepsValuesWithLocks, "value-names"},
	{leavesAwait, "value-close"},
	{countsByAnotherClock, "count"},
	{countsOnce, "count"},
	{countsBackwards, "count-order"},
	{countsInTwoSteps, "count-race"},
	{trimsCounterNames, "count-names"},
	{countsClosed, "count-close"},
}

// TestMutants runs every case on every broken engine. Each engine has to fail in the case
// that is there for its bug, and each case has to be there for some bug.
func TestMutants(t *testing.T) {
	for _, c := range cases {
		if !slices.ContainsFunc(mutants, func(m mutant) bool { return m.caught == c.name }) {
			t.Errorf("no broken engine shows that case %s catches anything", c.name)
		}
	}
	for _, m := range mutants {
		t.Run(string(m.bug), func(t *testing.T) {
			t.Parallel()
			var caught []string
			for i := range cases {
				failures := verdict(t, &cases[i], m.bug)
				if len(failures) > 0 {
					caught = append(caught, cases[i].name)
				}
				if cases[i].name == m.caught && len(failures) > 0 {
					t.Logf("%s: %s", m.caught, failures[0])
				}
			}
			t.Logf("caught by %s", strings.Join(caught, ", "))
			if !slices.Contains(caught, m.caught) {
				t.Errorf("case %s did not catch it", m.caught)
			}
		})
	}
}

// TestToy shows that the mutants are broken by their bugs alone.
func TestToy(t *testing.T) {
	h := toyHarness("")
	h.FakeTime = true
	Run(t, h)
}

func toyHarness(b bug) Harness {
	return Harness{
		New: func(T) Store {
			store := newToyStore(b)
			return Store{Open: func() driver.Engine { return store.engine() }}
		},
		TTL: time.Second, Slack: 5 * time.Second, Rounds: 100,
	}
}

// verdict runs one case on an engine with that bug and returns how it failed. Time is fake,
// so that what hangs is over at once.
func verdict(t *testing.T, c *testCase, b bug) []string {
	r := &recorder{name: t.Name() + "/" + c.name}
	synctest.Test(t, func(*testing.T) {
		over := make(chan struct{})
		go func() {
			defer close(over)
			defer r.cleanUp()
			c.run(newEnv(r, toyHarness(b)))
		}()
		<-over
		time.Sleep(2 * time.Hour) // for what a broken engine leaves behind
	})
	return r.failures
}

// recorder is a T that fails in private.
type recorder struct {
	name     string
	mu       sync.Mutex
	failures []string
	cleanups []func()
}

func (r *recorder) Helper()             {}
func (r *recorder) Name() string        { return r.name }
func (r *recorder) Logf(string, ...any) {}

func (r *recorder) TempDir() string {
	dir, err := os.MkdirTemp("", "drivertest")
	if err != nil {
		r.Fatalf("%v", err)
	}
	r.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) cleanUp() {
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
}
