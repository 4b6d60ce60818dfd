package ledger

// MaxFence is the largest fence: JavaScript and JSON readers keep numbers exact up to here.
const MaxFence = 1<<53 - 1

// maxClock is how far the wall clock may drive the counter, the year 2219. A clock that was
// absurdly wrong for a moment then leaves 2^50 numbers to count on with.
const maxClock = MaxFence - 1<<50

// Fences counts fence numbers. The numbers follow the wall clock in microseconds, so that
// they go on growing after the counter was lost, as long as the clock is sane; and they grow
// by themselves when the clock does not.
type Fences struct {
	Last int64 // the largest number given out

	// Ahead lets spans run ahead of the clock. An engine sets it whose holders all die with
	// its counter: then no holder is left whose number could be above the clock's.
	Ahead bool
}

// Next reserves up to span numbers and returns the first and how many they are. Unless Ahead
// is set, a span is cut to the lead of the clock over the counter: numbers taken faster than
// the clock runs would outrun it, and the clock could not stand in for a lost counter any
// more.
func (f *Fences) Next(span int, nowMicros int64) (first int64, n int) {
	nowMicros = min(nowMicros, maxClock)
	k := int64(span)
	if !f.Ahead {
		k = min(k, nowMicros-f.Last)
	}
	k = max(k, 1)
	f.Last = max(f.Last+k, nowMicros)
	return f.Last - k + 1, int(k)
}
