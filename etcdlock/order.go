package etcdlock

import (
	"cmp"
	"slices"

	"github.com/holdfast-go/holdfast/driver"
)

// The rule of this package: a key's request is granted when no key of the name that was
// created before it conflicts with it. Everybody decides that for himself from one reading of
// the keys, and nobody is told.
//
// It needs no record of who was granted what, because a request that is granted stays so
// whatever the others do: keys that come later do not count, and keys that go only take
// conflicts away. Two requests that conflict are never granted both: the later one was granted
// when it saw that the earlier one was gone. That is also what the locks of other clients rely
// on, which wait until all keys before theirs are gone, whatever those are.
//
// Permits conflict when the weights before them, of holders or not, leave no room for them.
// So nothing overtakes.
//
// An upgrade is the one exception, because it turns a share into one that conflicts with more:
// see upgrade.go.

// obstacle is what keeps a request from being granted.
type obstacle struct {
	entry *entry
	any   bool // whichever key of the name goes may make room, and not that of entry alone
}

// findObstacle says what of before, the keys created before me in their order, keeps me
// waiting. Its entry is nil when nothing does. It is always the last one that has to change:
// each request waits for one key, and each key that goes wakes one request, or those readers
// that are granted together.
func findObstacle(before []entry, me *entry) obstacle {
	if me.mode == driver.Permits {
		return findRoom(before, me)
	}
	for i := len(before) - 1; i >= 0; i-- {
		if conflicts(&before[i], me) {
			return obstacle{entry: &before[i]}
		}
	}
	return obstacle{}
}

// conflicts reports whether the earlier request keeps the later one from being granted. Both
// may be permits only where weights do not matter.
func conflicts(earlier, later *entry) bool {
	switch {
	case later.mode == driver.Exclusive, earlier.mode == driver.Exclusive:
		return true
	case later.mode == driver.Permits || earlier.mode == driver.Permits:
		return later.mode != earlier.mode
	case earlier.mode == driver.Shared:
		return false
	case later.mode == driver.Upgradeable:
		return true
	}
	// A reader who comes while the upgradeable share is being upgraded waits. Those from
	// before hold their shares, and the upgrade waits for them.
	return earlier.Upgrading && later.create > earlier.mod
}

// findRoom is findObstacle for permits.
func findRoom(before []entry, me *entry) obstacle {
	sum := me.Weight
	var waiting *entry
	used := 0
	for i := range before {
		b := &before[i]
		if b.mode != driver.Permits {
			waiting, used = b, 0
			continue
		}
		sum += b.Weight
		if used += b.Weight; used > b.Limit {
			waiting = b // it has no room either, so this one cannot have any before it has
		}
	}
	switch {
	case waiting != nil:
		return obstacle{entry: waiting}
	case sum > me.Limit:
		return obstacle{entry: &before[0], any: true}
	}
	return obstacle{}
}

// otherLimit returns the limit in use where it is not that of me, or 0.
func otherLimit(before []entry, me *entry) int {
	if me.mode == driver.Permits && len(before) > 0 && before[0].mode == driver.Permits && before[0].Limit != me.Limit {
		return before[0].Limit
	}
	return 0
}

// sorted puts entries into the order of their creation. Two of one name are never created at
// the same revision.
func sorted(entries []entry) []entry {
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.create, b.create) })
	return entries
}

// split parts sorted entries into those that hold their shares and those that wait.
func split(entries []entry) (holding, waiting []entry) {
	for i := range entries {
		if findObstacle(entries[:i], &entries[i]).entry == nil {
			holding = append(holding, entries[i])
		} else {
			waiting = append(waiting, entries[i])
		}
	}
	return holding, waiting
}
