package zklock

import (
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-zookeeper/zk"
	"github.com/holdfast-go/holdfast/driver"
)

// What Curator calls the nodes of its recipes.
const (
	protection = "_c_"      // and a UUID and a dash: who created the node
	lockBase   = "lock-"    // InterProcessMutex
	readBase   = "__READ__" // InterProcessReadWriteLock
	writeBase  = "__WRIT__"
	leaseBase  = "lease-" // InterProcessSemaphoreV2, below leasesNode
	leasesNode = "leases"
	locksNode  = "locks" // its InterProcessMutex: who waits for leases
)

// bases says what the nodes of locks are called that keep others out, by what stands before
// the ten digits: Curator's and, for the queue is the same, those of other libraries.
var bases = []struct {
	base string
	mode driver.Mode
}{
	{lockBase, driver.Exclusive},
	{writeBase, driver.Exclusive},
	{readBase, driver.Shared},
	{"__lock__", driver.Exclusive}, // kazoo
	{"__rlock__", driver.Shared},
	{"write-", driver.Exclusive}, // DistributedLock for .NET
	{"read-", driver.Shared},
}

// protected returns the start of a node's name that nobody else's node has: a UUID as Java
// draws it.
func protected() string {
	var id [16]byte
	rand.Read(id[:])
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return fmt.Sprintf("%s%x-%x-%x-%x-%x-", protection, id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// entry is a node below a lock's path.
type entry struct {
	name string
	seq  int32
	mode driver.Mode
}

// parseEntry reads the name of a node in a queue. It reports false for others.
func parseEntry(name string) (entry, bool) {
	for _, b := range bases {
		if i := strings.LastIndex(name, b.base); i >= 0 {
			if seq, ok := parseSeq(name[i+len(b.base):]); ok {
				return entry{name, seq, b.mode}, true
			}
		}
	}
	return entry{}, false
}

// parseSeq reads the number that the server has put behind a name: ten digits, or eleven
// characters when the counter has overflowed.
func parseSeq(digits string) (int32, bool) {
	if len(digits) != 10 && !(len(digits) == 11 && digits[0] == '-') {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	return int32(n), err == nil
}

// older compares places in a queue. The server's counter has 32 bits and starts again from
// the lowest when it has reached the largest, so what counts is the sign of the difference.
func older(a, b int32) int { return cmp.Compare(a-b, 0) }

// queueOf returns the entries among the children of a lock's path in the order of service.
func queueOf(children []string) []entry {
	var q []entry
	for _, name := range children {
		if e, ok := parseEntry(name); ok {
			q = append(q, e)
		}
	}
	slices.SortFunc(q, func(a, b entry) int { return older(a.seq, b.seq) })
	return q
}

// leasesOf returns the leases among the children of a semaphore's leases, in their order.
func leasesOf(children []string) []entry {
	var q []entry
	for _, name := range children {
		if i := strings.LastIndex(name, leaseBase); i >= 0 {
			if seq, ok := parseSeq(name[i+len(leaseBase):]); ok {
				q = append(q, entry{name, seq, driver.Permits})
			}
		}
	}
	slices.SortFunc(q, func(a, b entry) int { return older(a.seq, b.seq) })
	return q
}

// issuer is what the leases of one share have in common: their protection.
func issuer(name string) string { return name[:max(0, strings.LastIndex(name, leaseBase))] }

// label is the data of our nodes: JSON, for people and for Inspect. Other libraries put in
// what they like, Curator the host's address by default.
type label struct {
	Owner  string `json:"owner"`
	Span   int    `json:"fences"` // how many fences the share has, from the first on
	Weight int    `json:"weight,omitempty"`
	Limit  int    `json:"limit,omitempty"`
}

func labelOf(req *driver.Request) []byte {
	data, err := json.Marshal(label{req.Owner, min(req.Span, maxSpan), req.Weight, req.Limit})
	if err != nil {
		return nil // strings and numbers do not fail
	}
	return data
}

// readLabel reads the data of a node. ours is false for nodes of others, whose data is shown
// as their owner if it is text.
func readLabel(data []byte) (l label, ours bool) {
	if json.Unmarshal(data, &l) == nil && l.Span > 0 {
		return l, true
	}
	text := string(data)
	if len(text) > 128 || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		text = ""
	}
	return label{Owner: text, Span: 1}, false
}

// spanBits is how many of a fence's bits count within a transaction.
const (
	spanBits = 6
	maxSpan  = 1 << spanBits
	maxZxid  = 1<<(53-spanBits) - 1
)

// fenceOf returns the first of the 64 fences that belong to a transaction.
//
// A transaction number is made of the leader's epoch, 32 bits, and a counter of as many that
// starts at 0 in each epoch. Every change of the ensemble has one that is larger than all
// before, so the numbers of two grants differ and are in the order in which the nodes were
// created. 47 bits of it fit a fence: 32,767 epochs. A server on its own stays in one epoch
// and counts on beyond the 32 bits.
func fenceOf(zxid int64) (int64, error) {
	if zxid < 1 || zxid > maxZxid {
		return 0, driver.Failf(driver.Unavailable,
			"transaction 0x%x leaves no room for fences, which end after 32,767 elections: move the locks to a new ensemble", zxid)
	}
	return zxid << spanBits, nil
}

// holderOf describes who has the node of that name, data and stat.
func holderOf(mode driver.Mode, data []byte, stat *zk.Stat) driver.Holder {
	l, ours := readLabel(data)
	h := driver.Holder{Owner: l.Owner, Mode: mode, Since: time.UnixMilli(stat.Ctime)}
	zxid := stat.Czxid
	if ours {
		zxid = stat.Mzxid // later than Czxid where the share was granted again
	}
	if first, err := fenceOf(zxid); err == nil {
		h.Fence = first + int64(min(l.Span, maxSpan)) - 1
	}
	if mode == driver.Permits {
		h.Weight = 1
	}
	return h
}
