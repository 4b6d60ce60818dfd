package holdfast_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

// countedEngine notes that it was closed.
type countedEngine struct{ driver.Engine }

func (e countedEngine) Close() error {
	countedOpen.Add(-1)
	return e.Engine.Close()
}

// secret stands in the password of every URL that the fuzzer makes.
const secret = "HuNtEr2HuNtEr2"

// countedOpen is how many engines of the scheme counted:// are open.
var countedOpen atomic.Int64

var registerCounted = sync.OnceFunc(func() {
	driver.Register(driver.Scheme{
		Name: "counted", Example: "counted://",
		Open: func(_ context.Context, u *url.URL) (driver.Engine, error) {
			if err := driver.NewSettings(u).Err(); err != nil {
				return nil, err
			}
			countedOpen.Add(1)
			return countedEngine{memlock.New(memlock.Config{})}, nil
		},
	})
})

func FuzzOpen(f *testing.F) {
	registerCounted()
	for _, scheme := range []string{"mem", "counted", "", "redis", "MEM", "m em"} {
		for _, rest := range []string{
			"name", "", "name?ttl=5s", "name?ttl=1ns", "name?ttl=x", "name?owner=%00", "name?ttl=5s&ttl=6s",
			"name?nonsense=1", "name:99999999", "name:x", "[::1", "%zz", "name/%zz", "name?%zz", "n ame", "a@b",
			"name?renew-interval=1s&ttl=1s", "name?max-local-handovers=-1", "name#fragment", "\x7f",
		} {
			f.Add(scheme, "", "", rest)
		}
	}
	for _, around := range []string{"%", "%zz", " ", ":", "/", "?", "#", "[", "]", "<", "\x00", "\"", "é", "+", "&", "="} {
		f.Add("mem", around, "", "name")
		f.Add("counted", "", around, "name")
	}
	f.Fuzz(func(t *testing.T, scheme, before, after, rest string) {
		for _, raw := range []string{
			rest,
			scheme + "://" + rest,
			scheme + "://user:" + before + secret + after + "@" + rest,
		} {
			c, err := holdfast.Open(t.Context(), raw, holdfast.Config{})
			checkOpen(t, raw, c, err)
			if n := countedOpen.Load(); n != 0 {
				t.Fatalf("Open(%q): %d engines are left open", raw, n)
			}
		}
	})
}

func checkOpen(t *testing.T, raw string, c *holdfast.Client, err error) {
	t.Helper()
	if err == nil {
		if err := c.Close(); err != nil {
			t.Errorf("Open(%q), Close: %v", raw, err)
		}
		return
	}
	if c != nil {
		t.Errorf("Open(%q) returns a client and %v", raw, err)
	}
	var e *holdfast.Error
	if !errors.As(err, &e) {
		t.Errorf("Open(%q): %v is no *holdfast.Error", raw, err)
	}
	if u, e := url.Parse(raw); e == nil && u.User != nil && !strings.Contains(u.User.String(), secret) {
		return // an @ before it has ended the user's part: this is no password
	}
	if strings.Contains(err.Error(), secret) {
		t.Errorf("Open(%q) tells the password: %v", raw, err)
	}
}
