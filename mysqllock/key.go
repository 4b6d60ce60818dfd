package mysqllock

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"strings"

	"github.com/holdfast-go/holdfast/driver"
)

// maxKey is the longest name that GET_LOCK takes, in characters.
const maxKey = 64

// ours begins the keys that are not names: hashes, and locks of the engine's own.
const ours = "holdfast#"

// keyOf returns the GET_LOCK name of a name, prefix included. MySQL folds case, and servers
// differ in what they do with spaces at the end and with what is not ASCII; so a name stands
// for itself only if none of that can matter, and is hashed otherwise. No two names have the
// same key, short of a collision of 160 bits of SHA-256, and keys never need quoting.
func keyOf(full string) string {
	if len(full) <= maxKey && !strings.HasPrefix(full, ours) && !strings.ContainsFunc(full, delicate) {
		return full
	}
	return hashed("n", full)
}

// delicate reports whether a character keeps a name from standing for itself.
func delicate(r rune) bool {
	switch {
	case r <= ' ', r >= 0x7f, 'A' <= r && r <= 'Z':
		return true
	}
	return r == '\'' || r == '"' || r == '\\' || r == '`'
}

// gateOf returns the key of the lock that is held while permits of a name are counted.
func gateOf(full string) string { return hashed("g", full) }

// shareKey returns a key for one share that nobody else has.
func shareKey(token driver.Token) string { return hashed("s", string(token[:])+rand.Text()) }

// sessionKey returns a key for one session that nobody else has.
func sessionKey() string { return hashed("c", rand.Text()) }

var base = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

func hashed(kind, s string) string {
	sum := sha256.Sum256([]byte(kind + "\x00" + s))
	return ours + kind + base.EncodeToString(sum[:20])
}
