package zklock_test

import (
	"strings"
	"testing"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/zklock"
)

func TestNames(t *testing.T) {
	for name, want := range map[string]string{
		"invoice:2026": "invoice:2026",
		"a b":          "a b",
		"a/b":          "a%2Fb",
		"100%":         "100%25",
		".":            "%2E",
		"..":           "%2E%2E",
		"...":          "...",
		"é":            "%C3%A9",
	} {
		if got := zklock.Encode(name); got != want {
			t.Errorf("%q is encoded as %q, want %q", name, got, want)
		}
	}
	for _, element := range []string{"%", "%2", "%zz", "%2f", "%41", "a/b", "é", "."} {
		if name, ok := zklock.Decode(element); ok {
			t.Errorf("%q is decoded as %q, and no name is encoded like that", element, name)
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, name := range []string{"a", "a/b", "%41", "..", "é", "\U0010ffff"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if driver.CheckName(name) != nil {
			return
		}
		element := zklock.Encode(name)
		if strings.ContainsAny(element, "/\x00") || element == "" || element == "." || element == ".." {
			t.Fatalf("%q is encoded as %q", name, element)
		}
		if back, ok := zklock.Decode(element); !ok || back != name {
			t.Fatalf("%q is encoded as %q and decoded as %q, %v", name, element, back, ok)
		}
	})
}
