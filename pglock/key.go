package pglock

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"strconv"
)

// key is that of an advisory lock. PostgreSQL has two spaces of them: one of 64-bit numbers,
// one of pairs of 32 bits, which n then has in its halves.
type key struct {
	n    int64
	pair bool
}

// keys are the locks that a name may need.
//
// The lock itself is all that an Exclusive share takes. The others tell kinds of shares apart
// and stand in a window of 4096 numbers, so that they all come from one hash: 52 bits, and a
// collision of two names' windows can make one of them look taken, never free.
type keys struct {
	lock   key
	window int64
}

// Places in a window.
const (
	gatePlace    = 0    // who looks at one kind and takes another keeps others from doing so
	readersPlace = 1    // shared by the sessions of Shared and Upgradeable shares
	upgradePlace = 2    // of the one Upgradeable share
	permitsPlace = 3    // shared by the sessions of Permits
	limitPlace   = 1024 // plus the limit: shared by the sessions of Permits of that limit
	slotPlace    = 2048 // plus its number: of one permit
	windowSize   = 4096
)

func (k keys) at(place int) key { return key{n: k.window + int64(place)} }

// keysOf returns the keys of a name. They are the same in all versions and all processes.
func (c Config) keysOf(name string) keys {
	k := keys{window: c.hash("kinds", name) &^ (windowSize - 1)}
	if c.Encoding == DotNet {
		k.lock = dotNetKey(name)
	} else {
		k.lock = key{n: c.hash("lock", name)}
	}
	return k
}

// hash returns the first 64 bits of the SHA-256 of "holdfast:schema:purpose:name".
func (c Config) hash(purpose, name string) int64 {
	var room [128]byte
	text := append(room[:0], "holdfast:"...)
	text = append(append(text, c.Schema...), ':')
	text = append(append(text, purpose...), ':')
	sum := sha256.Sum256(append(text, name...))
	return int64(binary.BigEndian.Uint64(sum[:8]))
}

// dotNetKey is the PostgresAdvisoryLockKey that DistributedLock for .NET makes of a string
// when it may hash. Up to nine ASCII characters become a pair that can be read back: 7 bits
// each, a 0, and 1s to fill 64 bits. 16 hexadecimal digits are a number, twice eight with a
// comma a pair. Anything else is the first eight bytes, the lowest first, of its SHA-1.
func dotNetKey(name string) key {
	if k, ok := dotNetASCII(name); ok {
		return key{n: k, pair: true}
	}
	pair := len(name) == 17 && name[8] == ','
	if len(name) == 16 || pair {
		high, err1 := strconv.ParseUint(name[:8], 16, 32)
		low, err2 := strconv.ParseUint(name[len(name)-8:], 16, 32)
		if err1 == nil && err2 == nil {
			return key{n: int64(high<<32 | low), pair: pair}
		}
	}
	sum := sha1.Sum([]byte(name))
	return key{n: int64(binary.LittleEndian.Uint64(sum[:8]))}
}

func dotNetASCII(name string) (int64, bool) {
	const most, bits, ones = 9, 7, 1<<7 - 1
	if len(name) > most {
		return 0, false
	}
	var n uint64
	for i := range len(name) {
		if name[i] > ones {
			return 0, false
		}
		n = n<<bits | uint64(name[i])
	}
	n <<= 1
	for range most - len(name) {
		n = n<<bits | ones
	}
	return int64(n), true
}
