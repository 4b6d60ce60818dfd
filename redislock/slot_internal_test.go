package redislock

import (
	"crypto/rand"
	"testing"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

func TestSlotOf(t *testing.T) {
	keys := []string{
		"", "{", "}", "{}", "}{", "a{b}c", "a{b}c{d}", "{}{a}", "{{a}}", "a{}b{c}", "a}{b}", "a{b", "foo{{bar}}zap",
		"\xff\x00", "holdfast:{user1000}.following",
	}
	for range 2000 {
		b := make([]byte, 12)
		rand.Read(b)
		for i := range b {
			if b[i] < 40 {
				b[i] = "{}a"[b[i]%3]
			}
		}
		keys = append(keys, string(b))
	}
	for _, key := range keys {
		if got, want := slotOf(key), testserver.Slot(key); got != want {
			t.Errorf("%q is in slot %d, not in %d", key, want, got)
		}
	}
}

func TestTags(t *testing.T) {
	for slot, tag := range tags() {
		for _, key := range []string{companions + "q:" + tag + "a{b}c", companions + "in:" + tag + "}{", tag} {
			if testserver.Slot(key) != slot {
				t.Fatalf("%q is not in slot %d", key, slot)
			}
		}
	}
}
