package redislock

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// tokenSize is the length of an encoded token.
const tokenSize = 22

func encodeToken(t driver.Token) string {
	return base64.RawURLEncoding.EncodeToString(t[:])
}

// sign returns the key of a name and how a request about it signs what it takes: the owner's
// label, for people, and the token. Both are parts of one string, to allocate once.
func (e *Engine) sign(name, owner string, t driver.Token) (key, id string, err error) {
	var token [tokenSize]byte
	base64.RawURLEncoding.Encode(token[:], t[:])
	n := len(e.cfg.Prefix) + len(name)
	var both string
	if owner == "" {
		both = e.cfg.Prefix + name + string(token[:])
	} else {
		both = e.cfg.Prefix + name + owner + " " + string(token[:])
	}
	if strings.HasPrefix(both[:n], companions) { // with raw keys, or a prefix like "holdfast" and a name like ".fence"
		return "", "", driver.Failf(driver.Invalid,
			"its key would begin with %q, which is for companion keys: choose another name or prefix", companions)
	}
	return both[:n], both[n:], nil
}

// share is what a line of the scripts says of a holder.
type share struct {
	driver.Holder
	foreign bool
}

var modeLetters = map[byte]driver.Mode{
	'x': driver.Exclusive, 's': driver.Shared, 'u': driver.Upgradeable, 'p': driver.Permits,
}

// parseShare reads 'mode weight value' where value is that of an exclusive lock: 'owner token
// first+more seconds.micros'. A value that is not ours is another library's token: it is
// shown as a hash, for who knows the token can release the lock.
func parseShare(line string) (share, bool) {
	var s share
	head, value, _ := strings.Cut(line, " ")
	weight, value, ok := strings.Cut(value, " ")
	if !ok || len(head) != 1 {
		return s, false
	}
	s.Mode = modeLetters[head[0]]
	if s.Mode == driver.Permits {
		s.Weight, _ = strconv.Atoi(weight)
	}
	rest, stamp := cutLast(value)
	id, numbers := cutLast(rest)
	first, more, _ := strings.Cut(numbers, "+")
	fence, err1 := strconv.ParseInt(first, 10, 64)
	extra, err2 := strconv.ParseInt("0"+more, 10, 64)
	since, err3 := parseStamp(stamp)
	owner, token := cutLast(id)
	if err1 != nil || err2 != nil || err3 != nil || len(token) != tokenSize {
		s.foreign = true
		s.Owner = fmt.Sprintf("another client (value has SHA-256 %x…)", sha256.Sum256([]byte(value)))[:46] + "…)"
		return s, true
	}
	s.Owner, s.Fence, s.Since = owner, fence+extra, since
	return s, true
}

// cutLast splits s at its last space.
func cutLast(s string) (before, after string) {
	i := strings.LastIndexByte(s, ' ')
	if i < 0 {
		return "", s
	}
	return s[:i], s[i+1:]
}

// parseStamp reads the seconds and microseconds of the server's clock.
func parseStamp(s string) (time.Time, error) {
	sec, micro, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(sec, 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	us, err := strconv.ParseInt(micro, 10, 64)
	return time.Unix(n, us*1000), err
}
