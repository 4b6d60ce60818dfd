package redislock

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
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

// decodeToken reads what encodeToken wrote.
func decodeToken(s string) (t driver.Token, err error) {
	n := 0
	if len(s) == tokenSize {
		n, err = base64.RawURLEncoding.Decode(t[:], []byte(s))
	}
	if n != len(t) && err == nil {
		err = errors.New("a token of another length")
	}
	return t, err
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

// letters is how the scripts write modes: each by its letter, in the order of the modes.
const letters = "xsup"

// letterOf takes a claim that names no mode for one on an exclusive lock.
func letterOf(m driver.Mode) byte {
	if i := int(m - driver.Exclusive); i < len(letters) {
		return letters[i]
	}
	return letters[0]
}

func modeOf(letter string) driver.Mode {
	return driver.Exclusive + driver.Mode(strings.Index(letters, letter))
}

// parseShare reads what a line of the scripts says of a holder: 'mode weight value', where
// value is that of an exclusive lock, 'owner token first+more seconds.micros'. A value that is
// not ours is another library's token: it is shown as a hash, for who knows the token can
// release the lock.
func parseShare(line string) (driver.Holder, bool) {
	var h driver.Holder
	head, value, _ := strings.Cut(line, " ")
	weight, value, ok := strings.Cut(value, " ")
	if !ok || len(head) != 1 {
		return h, false
	}
	h.Mode = modeOf(head)
	if h.Mode == driver.Permits {
		h.Weight, _ = strconv.Atoi(weight)
	}
	rest, stamp := cutLast(value)
	id, numbers := cutLast(rest)
	first, more, _ := strings.Cut(numbers, "+")
	fence, err1 := strconv.ParseInt(first, 10, 64)
	extra, err2 := strconv.ParseInt("0"+more, 10, 64)
	since, err3 := parseStamp(stamp)
	owner, token := cutLast(id)
	if err1 != nil || err2 != nil || err3 != nil || len(token) != tokenSize {
		sum := sha256.Sum256([]byte(value))
		h.Owner = fmt.Sprintf("another client (value has SHA-256 %x…)", sum[:6])
		return h, true
	}
	h.Owner, h.Fence, h.Since = owner, fence+extra, since
	return h, true
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
