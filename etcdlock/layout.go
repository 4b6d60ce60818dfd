package etcdlock

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// The keys of a name begin with Config.Prefix, the name and a slash, and end in the id of a
// lease in hex, as they do in etcd's concurrency package. A process that asks for one name
// several times at once has a minus sign and a number behind that for all but the first. Others
// never look at that part: whoever has the key with the lowest creation revision holds the
// lock, and everybody else waits until all keys before theirs are gone.
//
// Keys are used again: etcd remembers those that were deleted until it is compacted, and has to
// pass over them whenever the keys of a name are read. See place.go.
//
// A slash in a name is written %2F, so that no name's keys lie among those of another, and a
// percent sign %25, so that no two names are written the same way.
var nameCodec = strings.NewReplacer("%", "%25", "/", "%2F")

var nameDecoder = strings.NewReplacer("%2F", "/", "%25", "%")

// Keys for other purposes have a percent sign where no name has one.
const (
	auditKeys = "%audit/"
	trialKeys = "%trial/"
)

// keysOf is what all keys of a name begin with, and no key of another name.
func (c *Config) keysOf(name string) string { return c.Prefix + nameCodec.Replace(name) + "/" }

// nameOf is the name that key belongs to, and false for keys that are not of a lock.
func (c *Config) nameOf(key string) (string, bool) {
	rest, ok := strings.CutPrefix(key, c.Prefix)
	encoded, _, slash := strings.Cut(rest, "/")
	name := nameDecoder.Replace(encoded)
	if !ok || !slash || nameCodec.Replace(name) != encoded || driver.CheckName(name) != nil {
		return "", false
	}
	return name, true
}

// note is the value of a key: what the request asks for, for all who read it.
type note struct {
	Format    int    `json:"holdfast"`
	Mode      string `json:"mode"`
	Weight    int    `json:"weight,omitempty"`
	Limit     int    `json:"limit,omitempty"`
	Upgrading bool   `json:"upgrading,omitempty"` // holds an upgradeable share and wants it exclusive
	Owner     string `json:"owner,omitempty"`
	Since     int64  `json:"since,omitempty"` // ms of the owner's wall clock when it was written
	Span      int    `json:"span,omitempty"`

	// Granted is the revision that the grant's numbers come from, once another write to the
	// key has come after it. Until then it is the revision of the key's last write.
	Granted int64 `json:"granted,omitempty"`
}

const noteFormat = 1

func newNote(req *driver.Request) note {
	return note{
		Format: noteFormat, Mode: req.Mode.String(), Weight: req.Weight, Limit: req.Limit,
		Owner: req.Owner, Since: time.Now().UnixMilli(), Span: span(req.Span),
	}
}

func (n *note) encode() string {
	text, _ := json.Marshal(n) // numbers, booleans and strings: it cannot fail
	return string(text)
}

// entry is a key of a name: a holder of it or somebody who waits.
type entry struct {
	note
	mode        driver.Mode
	foreign     bool // written by something else, for which the first key holds alone
	key         string
	create, mod int64
	lease       clientv3.LeaseID
}

// maxPermits bounds limits, so that sums of weights do not overflow.
const maxPermits = 1 << 30

// parse reads a key. What is not exactly what this package writes counts as that of another
// client, which shares with nobody.
func parse(kv *mvccpb.KeyValue) entry {
	e := entry{
		key: string(kv.Key), create: kv.CreateRevision, mod: kv.ModRevision,
		lease: clientv3.LeaseID(kv.Lease),
	}
	if json.Unmarshal(kv.Value, &e.note) == nil && e.Format == noteFormat {
		e.mode = modes[e.Mode]
	}
	permits := e.Weight >= 1 && e.Weight <= e.Limit && e.Limit <= maxPermits
	if e.mode == 0 || permits != (e.mode == driver.Permits) {
		e.note, e.mode, e.foreign = note{}, driver.Exclusive, true
	}
	return e
}

var modes = map[string]driver.Mode{
	driver.Exclusive.String(): driver.Exclusive, driver.Shared.String(): driver.Shared,
	driver.Upgradeable.String(): driver.Upgradeable, driver.Permits.String(): driver.Permits,
}

func parseAll(kvs []*mvccpb.KeyValue) []entry {
	entries := make([]entry, len(kvs))
	for i, kv := range kvs {
		entries[i] = parse(kv)
	}
	return entries
}

// fences are the first and last number of an entry that holds a share.
func (e *entry) fences() (first, last int64) {
	first = fenceOf(e.mod)
	if e.Granted > 0 {
		first = fenceOf(e.Granted)
	}
	return first, first + int64(span(e.Span)) - 1
}

// holder describes the entry to others.
func (e *entry) holder() *driver.Holder {
	h := &driver.Holder{Owner: e.Owner, Mode: e.mode, Weight: e.Weight}
	_, h.Fence = e.fences()
	if e.Since > 0 {
		h.Since = time.UnixMilli(e.Since)
	}
	return h
}

// A grant's numbers are those from its revision times 128 on: each grant is proved by a write
// of its own to the request's key, no two writes to keys of one name have the same revision,
// and 128 numbers are more than the core ever hands out under one grant. Revisions below 2^46
// keep the numbers below 2^53; at ten thousand writes a second they last for 220 years.
const (
	fenceBits   = 7
	maxSpan     = 1 << fenceBits
	maxRevision = 1 << (53 - fenceBits)
)

func fenceOf(revision int64) int64 { return revision << fenceBits }

// span is how many numbers are granted where n are asked for.
func span(n int) int { return max(1, min(n, maxSpan)) }
