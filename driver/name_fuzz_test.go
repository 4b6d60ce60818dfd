package driver_test

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

func FuzzCheckName(f *testing.F) {
	for _, seed := range []string{
		"", "a", "A", ".", "..", "a/b", " ", "é", "e\u0301", "\u200b", "\u2028", "\ufffd", "\x00", "a\nb", "\x7f",
		"\u0080", "\u009f", "\u00a0", "\xff", "a\xc3", "\xed\xa0\x80", "😀", "{a}b", "100%",
		strings.Repeat("n", driver.MaxName), strings.Repeat("n", driver.MaxName+1),
		strings.Repeat("é", driver.MaxName/2), strings.Repeat("é", driver.MaxName/2) + "a",
	} {
		f.Add(seed)
	}
	e := memlock.New(memlock.Config{})
	f.Fuzz(func(t *testing.T, name string) {
		err := driver.CheckName(name)
		valid := name != "" && len(name) <= driver.MaxName && utf8.ValidString(name) &&
			!strings.ContainsFunc(name, unicode.IsControl)
		if (err == nil) != valid {
			t.Fatalf("CheckName(%q): %v, valid is %v", name, err, valid)
		}
		if err != nil {
			if !strings.HasPrefix(err.Error(), "name ") || len(err.Error()) > 200 {
				t.Errorf("CheckName(%q): %v", name, err)
			}
			return
		}
		req := driver.Request{
			Name: name, Mode: driver.Exclusive, Token: driver.Token{1}, TTL: time.Minute, Span: 1,
		}
		g, err := e.Acquire(t.Context(), req)
		if err != nil {
			t.Fatalf("memlock: Acquire(%q): %v", name, err)
		}
		if info, err := e.Inspect(t.Context(), name); err != nil || info.Name != name || len(info.Holders) != 1 {
			t.Errorf("memlock: Inspect(%q): %+v, %v", name, info, err)
		}
		if err := e.Release(t.Context(), req.Claim(g)); err != nil {
			t.Errorf("memlock: Release(%q): %v", name, err)
		}
	})
}
