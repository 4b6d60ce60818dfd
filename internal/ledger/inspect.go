package ledger

import (
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// Info describes the book of name; until turns a share's Until into wall-clock time.
func (l *Ledger) Info(name string, until func(*Share) time.Time) driver.Info {
	info := driver.Info{Name: name, Holders: []driver.Holder{}}
	for i := range l.Shares {
		s := &l.Shares[i]
		if s.State == Waiting || s.State == Upgrading {
			info.Waiters++
		}
		if s.State == Waiting {
			continue
		}
		info.Holders = append(info.Holders, *s.Holder(until))
		info.Limit = s.Limit
		info.Fence = max(info.Fence, s.Top())
	}
	return info
}

// Holder describes the share to others.
func (s *Share) Holder(until func(*Share) time.Time) *driver.Holder {
	return &driver.Holder{
		Owner: s.Owner, Mode: s.Mode, Weight: s.Weight, Fence: s.Top(),
		Since: time.UnixMicro(s.Since), Until: until(s),
	}
}

// BrokenBy reports whether a break that expects fence applies: fence 0 always does, another
// one when somebody holds a share whose numbers include it.
func (l *Ledger) BrokenBy(fence int64) bool {
	if fence == 0 {
		return true
	}
	for i := range l.Shares {
		s := &l.Shares[i]
		if s.State != Waiting && s.Fence <= fence && fence <= s.Top() {
			return true
		}
	}
	return false
}
