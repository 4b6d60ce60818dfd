package protocol

import (
	"errors"
	"strconv"
	"strings"
)

// Record is what a node of a quorum keeps about itself, see lua/quorum_node.lua.
type Record struct {
	Text                      string
	Epoch, Constants          string
	Start, Floor, Mark, Since int64
	ReplID                    string // how INFO spells the term
}

var errRecord = errors.New("a node's record cannot be read")

// ParseRecord reads a record, as it stands on the node.
func ParseRecord(text string) (*Record, error) {
	part := strings.SplitN(text, " ", 8)
	if len(part) != 8 || part[0] != "v1" {
		return nil, errRecord
	}
	r := &Record{Text: text, Epoch: part[2], Constants: part[7], ReplID: "master_replid:" + part[1] + "\r"}
	var err [4]error
	r.Start, err[0] = strconv.ParseInt(part[3], 10, 64)
	r.Floor, err[1] = strconv.ParseInt(part[4], 10, 64)
	r.Mark, err[2] = strconv.ParseInt(part[5], 10, 64)
	r.Since, err[3] = strconv.ParseInt(part[6], 10, 64)
	return r, errors.Join(err[:]...)
}

// Serves reports whether a node with this record grants, in that epoch and to clients with
// those constants, for as long as it is the node's. One that is not seeded is in no epoch.
func (r *Record) Serves(epoch, constants string) bool {
	return r.Epoch == epoch && !strings.HasPrefix(epoch, "-") && r.Constants == constants && r.Start == 0
}

// Grants reports whether n is a number that such a node may grant, whatever it has forgotten of
// the name.
func (r *Record) Grants(n int64) bool { return n > r.Floor && n > r.Mark && n <= mostNumber }

// mostNumber is the largest fence: scripts count in floating point.
const mostNumber = 9_000_000_000_000_000
