package filelock_test

import (
	"strings"
	"testing"

	"github.com/holdfast-go/holdfast/filelock"
)

func FuzzReadFile(f *testing.F) {
	f.Add([]byte{})
	f.Add(filelock.NewFile("a"))
	f.Add(filelock.NewFile(strings.Repeat("long", 128)))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, n, err := filelock.ReadFile(b)
		if err == nil && n > filelock.MaxShares {
			t.Errorf("%d shares", n)
		}
	})
}

// FuzzReadPayload leaves out the checksum, which a fuzzer does not get past: whatever is
// decoded can be stored and decoded again.
func FuzzReadPayload(f *testing.F) {
	f.Add([]byte{})
	for _, name := range []string{"a", "b\u0301", strings.Repeat("long", 128)} {
		f.Add(filelock.NewFile(name)[filelock.SlotSize+24:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		again, err := filelock.ReadPayload(b)
		if err != nil {
			return
		}
		third, err := filelock.ReadPayload(again)
		if err != nil || string(third) != string(again) {
			t.Errorf("%x became %x, %v", again, third, err)
		}
	})
}
