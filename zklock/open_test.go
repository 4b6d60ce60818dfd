package zklock_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/zklock"
)

// TestOpenRefuses: bad input is refused before anything is sent, with what is wrong and no
// password in it.
func TestOpenRefuses(t *testing.T) {
	for url, want := range map[string]string{
		"zk://h:0":                           `port "0"`,
		"zk://h:99999":                       `port "99999"`,
		"zk://:1":                            "host is empty",
		"zk://h1,:2":                         "host is empty",
		"zk://h/zookeeper/x":                 "keep that path",
		"zk://h/a//b":                        "empty elements",
		"zk://h/a/../b":                      "empty elements",
		"zk://h/é":                           "ASCII",
		"zk://u:geheim@h/a#b":                "of the form",
		"zk://geheim@h":                      "User or Password",
		"zk://h?recipe=geheim1":              "mutex or read-write",
		"zk://h?session-timeout=1ms":         "SessionTimeout is 1ms",
		"zk://h?session-timeout=2h":          "SessionTimeout is 2h",
		"zk://h?timeout=1m":                  "Timeout is 1m",
		"zk://h?timeout=soon":                `"soon"`,
		"zk://h?colour=red":                  `"colour" is not known`,
		"redis://h":                          "scheme",
		"zk://u:geheim%zz@h":                 "cannot be read",
		"zk:h":                               "of the form",
		"zk://h/" + strings.Repeat("x", 999): "512",
	} {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		_, err := zklock.Open(ctx, url, zklock.Config{})
		cancel()
		var d *driver.Error
		if !errors.As(err, &d) || d.Kind != driver.Invalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: error is %v, want one with %q", url, err, want)
		} else if strings.Contains(err.Error(), "geheim@") || strings.Contains(err.Error(), "geheim%") {
			t.Errorf("%s: error %q tells the password", url, err)
		}
	}
	for _, cfg := range []zklock.Config{
		{Root: "/"}, {Root: "a"}, {Recipe: 7}, {User: "a:b", Password: "c"}, {Password: "c"}, {ACL: []zk.ACL{}},
		{Timeout: time.Nanosecond}, {SessionTimeout: time.Second + 1},
	} {
		var d *driver.Error
		if _, err := zklock.Open(context.Background(), "zk://h", cfg); !errors.As(err, &d) || d.Kind != driver.Invalid {
			t.Errorf("%+v: error is %v, want an Invalid one", cfg, err)
		}
	}
}

// TestOpenWithoutServer: nobody there is not a reason to wait for ever, nor a riddle.
func TestOpenWithoutServer(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := zklock.Open(ctx, "zk://127.0.0.1:1", zklock.Config{})
	var d *driver.Error
	if !errors.As(err, &d) || d.Kind != driver.Unavailable || d.Outcome != driver.NotApplied ||
		!errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "127.0.0.1:1") || !strings.Contains(err.Error(), "refused") {
		t.Fatalf("error is %v", err)
	}
}
