package pglock

import (
	"strconv"
	"strings"
)

// op is what a step of the combined statement does. The numbers are those in its text.
type op byte

const (
	opPing         op = iota // nothing: the session lives
	opFence                  // numbers for a share that the session holds
	opLock                   // take a key, and numbers
	opShare                  // take a name for readers, and numbers
	opUpgradeable            // take a name for readers and the one who may upgrade, and numbers
	opUnlock                 // give back a key
	opUnlockShared           // give back a key that is shared
	opCancel                 // end the statement that a process of the server carries out
)

// step is one line of the combined statement.
type step struct {
	op     op
	key    key
	window int64 // of the name, for those that need it
}

// answer is what a step comes to: nothing where a lock was refused, otherwise the first of the
// numbers, or 1 for done and 0 for not.
type answer struct {
	n  int64
	ok bool
}

// moved is the answer to every step when the statement reached another session than the one
// that holds the locks.
const moved = -1

// texts are the statements of one schema.
type texts struct {
	combined, lock, unlock        string
	waitLock, waitShared, permits string
	waitKey                       string
	publish                       string
}

// The calls of the server for a key k, which is a pair where p says so. CASE evaluates what it
// needs and nothing else, in its order: that is how numbers are taken after the lock.
func call(function string) string {
	return "CASE WHEN o.p THEN " + function + "((o.k >> 32)::int, o.k::bit(32)::int) ELSE " + function + "(o.k) END"
}

// newTexts returns the statements for a schema, whose name needs no quotes.
//
// Readers and permits look at each other's keys by taking them for a moment: whoever holds
// the gate is the only one to do so, and what is taken until the end of the transaction is
// given back with it. Gates are waited for in the order of their numbers, so nobody waits in
// a circle.
func newTexts(schema string) *texts {
	place := func(n int) string { return "o.w + " + strconv.Itoa(n) }
	r := strings.NewReplacer(
		"FENCE", "nextval('"+schema+".fence')",
		"TRY_LOCK(k)", call("pg_try_advisory_lock"),
		"TRY_SHARED(k)", call("pg_try_advisory_lock_shared"),
		"AWAIT_LOCK(k)", call("pg_advisory_lock"),
		"AWAIT_SHARED(k)", call("pg_advisory_lock_shared"),
		"UNLOCK(k)", call("pg_advisory_unlock"),
		"UNLOCK_SHARED(k)", call("pg_advisory_unlock_shared"),
		"ENTER_GATE", "pg_advisory_xact_lock("+place(gatePlace)+") IS NULL",
		"NO_PERMITS", "pg_try_advisory_xact_lock("+place(permitsPlace)+")",
		"NO_READERS", "pg_try_advisory_xact_lock("+place(readersPlace)+")",
		"READERS", place(readersPlace),
		"UPGRADE", place(upgradePlace),
		"PERMITS", place(permitsPlace),
		"OF_LIMIT", place(limitPlace)+" + o.n",
		"SLOT", place(slotPlace)+" + i",
	)
	return &texts{
		combined: r.Replace(combinedText), lock: r.Replace(lockText), unlock: unlockText, waitLock: r.Replace(waitLockText), waitKey: r.Replace(waitKeyText),
		waitShared: r.Replace(waitSharedText), permits: r.Replace(permitsText),
		publish: strings.ReplaceAll(publishText, "SCHEMA", schema),
	}
}

// combinedText carries out many steps. $1 to $4 are their ops, keys, windows and whether keys
// are pairs; $5 is the session's process, as whom the statement does nothing in another.
const combinedText = `SELECT CASE WHEN pg_backend_pid() <> $5 THEN -1 ELSE CASE o.op
WHEN 0 THEN 1
WHEN 1 THEN FENCE
WHEN 2 THEN CASE WHEN TRY_LOCK(k) THEN FENCE END
WHEN 3 THEN CASE
	WHEN ENTER_GATE THEN NULL
	WHEN NOT TRY_SHARED(k) THEN NULL
	WHEN NO_PERMITS THEN CASE WHEN pg_try_advisory_lock_shared(READERS) THEN FENCE END
	WHEN UNLOCK_SHARED(k) THEN NULL END
WHEN 4 THEN CASE
	WHEN ENTER_GATE THEN NULL
	WHEN NOT TRY_SHARED(k) THEN NULL
	WHEN NO_PERMITS THEN CASE
		WHEN pg_try_advisory_lock(UPGRADE) THEN CASE WHEN pg_try_advisory_lock_shared(READERS) THEN FENCE END
		WHEN UNLOCK_SHARED(k) THEN NULL END
	WHEN UNLOCK_SHARED(k) THEN NULL END
WHEN 5 THEN (UNLOCK(k))::int
WHEN 6 THEN (UNLOCK_SHARED(k))::int
WHEN 7 THEN pg_cancel_backend(o.k::int)::int
END END
FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::bool[]) AS o(op, k, w, p)`

// lockText and unlockText carry out one step, the commonest two, and say the same as combinedText
// does: $1 is the key, PID the session's process, which stands in the text, because the server takes
// longer for an argument. Without arrays to take apart, and rows to make of them, they cost it a third.
const (
	lockText = `SELECT CASE WHEN pg_backend_pid() <> PID THEN -1
WHEN pg_try_advisory_lock($1) THEN FENCE END`
	unlockText = `SELECT CASE WHEN pg_backend_pid() <> PID THEN -1 ELSE pg_advisory_unlock($1)::int END`
)

// waitLockText waits for a key: $1, in the window $2, and a pair if $3 says so. The number is
// negative where somebody was in the way.
const waitLockText = `SELECT CASE WHEN TRY_LOCK(k) THEN FENCE WHEN AWAIT_LOCK(k) IS NULL THEN NULL ELSE -FENCE END
FROM (SELECT $1::bigint, $2::bigint, $3::bool) AS o(k, w, p)`

// waitKeyText says the same as waitLockText of a key that is no pair, the commonest.
const waitKeyText = `SELECT CASE WHEN pg_try_advisory_lock($1) THEN FENCE WHEN pg_advisory_lock($1) IS NULL THEN NULL ELSE -FENCE END`

// waitSharedText waits for a name as a reader. It comes back empty-handed where those in the
// way hold permits: they cannot be waited for.
const waitSharedText = `SELECT CASE
	WHEN AWAIT_SHARED(k) IS NULL THEN NULL
	WHEN ENTER_GATE THEN NULL
	WHEN NO_PERMITS THEN CASE WHEN pg_try_advisory_lock_shared(READERS) THEN FENCE END
	WHEN UNLOCK_SHARED(k) THEN NULL END
FROM (SELECT $1::bigint, $2::bigint, $3::bool) AS o(k, w, p)`

// permitsText takes $6 of the slots $5 of a semaphore of limit $4. $7 says that this session
// holds no permit of it yet: the first takes the name for permits of that limit. It answers
// what it came to, the numbers and the slots.
//
// All who hold permits of a name hold the same limit. So where others hold permits and nobody
// holds this limit, they hold another.
const permitsText = `SELECT o.came, CASE
	WHEN o.came <> 1 THEN NULL
	WHEN cardinality(o.slots) = $6 THEN FENCE
	WHEN (SELECT count(*) FILTER (WHERE pg_advisory_unlock(SLOT)) FROM unnest(o.slots) AS i) IS NULL THEN NULL
	WHEN NOT $7 THEN NULL
	WHEN pg_advisory_unlock_shared(PERMITS) AND pg_advisory_unlock_shared(OF_LIMIT) AND UNLOCK_SHARED(k) THEN NULL END,
	array_to_string(o.slots, ',')
FROM (SELECT o.*, CASE WHEN o.came <> 1 THEN NULL ELSE
		coalesce((SELECT array_agg(i) FROM (
			SELECT i FROM unnest($5::int[]) AS i WHERE pg_try_advisory_lock(SLOT) LIMIT $6) AS got), '{}') END AS slots
	FROM (SELECT o.*, CASE
			WHEN ENTER_GATE THEN 0
			WHEN NOT $7 THEN 1
			WHEN NOT TRY_SHARED(k) THEN 0
			WHEN NOT NO_READERS THEN CASE WHEN UNLOCK_SHARED(k) THEN 0 END
			WHEN NOT NO_PERMITS THEN CASE
				WHEN NOT pg_try_advisory_xact_lock(OF_LIMIT) THEN
					CASE WHEN pg_try_advisory_lock_shared(PERMITS) AND pg_try_advisory_lock_shared(OF_LIMIT) THEN 1 END
				WHEN UNLOCK_SHARED(k) THEN 2 END
			WHEN pg_try_advisory_lock_shared(PERMITS) AND pg_try_advisory_lock_shared(OF_LIMIT) THEN 1 END AS came
		FROM (SELECT $1::bigint AS k, $2::bigint AS w, $3::bool AS p, $4::int AS n) AS o OFFSET 0) AS o OFFSET 0) AS o`
