package driver_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

func FuzzSettings(f *testing.F) {
	for _, seed := range []string{
		"", "s=a", "s=&d=1s&n=1&b=on", "d=1m30s", "d=-1s", "d=1", "d=9999999999h", "n=x", "n=9223372036854775808",
		"b=maybe", "b=YES", "s=1&s=2", "d=1s&d=2s", "other=1", "s", "=1", "%zz=1", "s=%zz", "a;b=1", "%00=%00",
		"d=" + strings.Repeat("9", 300), strings.Repeat("k", 300) + "=1", "d=\xff", "&&&", "s=a%26n%3D1", "%0&b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		u := &url.URL{Scheme: "mem", RawQuery: query}
		values, parseErr := url.ParseQuery(query)
		s := driver.NewSettings(u)

		text := s.String("s", "default")
		if v := values["s"]; len(v) == 1 && text != v[0] || len(v) != 1 && text != "default" {
			t.Errorf("String is %q, the query has %q", text, v)
		}
		d := s.Duration("d", time.Minute)
		if v := values["d"]; len(v) == 1 {
			if want, err := time.ParseDuration(v[0]); err == nil && d != want || err != nil && d != time.Minute {
				t.Errorf("Duration is %v, the query has %q", d, v)
			}
		}
		n, b := s.Int("n", 7), s.Bool("b", true)
		if len(values["n"]) != 1 && n != 7 || len(values["b"]) != 1 && !b {
			t.Errorf("the defaults are not used: %d, %v", n, b)
		}

		rest := s.Rest(u)
		if u.RawQuery != query {
			t.Errorf("Rest changed its argument to %q", u.RawQuery)
		}
		left, err := url.ParseQuery(rest.RawQuery)
		if err != nil {
			t.Errorf("the rest %q cannot be parsed: %v", rest.RawQuery, err)
		}
		for _, key := range []string{"s", "d", "n", "b"} {
			if left.Has(key) {
				t.Errorf("the rest %q has %q, which was read", rest.RawQuery, key)
			}
		}
		checkSettingsErrors(t, s, parseErr, left)
	})
}

// checkSettingsErrors wants an error for a query that cannot be parsed and for each parameter
// that is left, and always the same.
func checkSettingsErrors(t *testing.T, s *driver.Settings, parseErr error, left url.Values) {
	t.Helper()
	soFar, all := s.ErrSoFar(), s.Err()
	if (parseErr != nil || soFar != nil || len(left) > 0) != (all != nil) {
		t.Fatalf("Err is %v: the query's own error is %v, that so far %v, and %d are left", all, parseErr, soFar, len(left))
	}
	if parseErr != nil && soFar == nil {
		t.Errorf("ErrSoFar does not tell that %v", parseErr)
	}
	if again := s.Err(); all != nil && again.Error() != all.Error() {
		t.Errorf("Err is %q, then %q", all, again)
	}
	if all != nil && strings.Count(all.Error(), "is not known") < len(left) {
		t.Errorf("Err is %q, with %d unknown parameters", all, len(left))
	}
	if soFar2 := s.ErrSoFar(); (soFar == nil) != (soFar2 == nil) || soFar != nil && soFar.Error() != soFar2.Error() {
		t.Errorf("ErrSoFar is %v, and after Err %v", soFar, soFar2)
	}
}
