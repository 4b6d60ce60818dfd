package redislock_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
)

// TestACL: a user with the rule that ACL returns can lock, wait, share, look and break.
func TestACL(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, testserver.RedisOptions{})
	for _, grace := range []string{"off", "crash"} {
		parameters := "?max-ttl=1s&prefix=" + grace + ":&failover-grace=" + grace
		rule := accepts(t, "redis://"+server.Addr()+parameters).ACL("app" + grace)
		must(t, server, append(strings.Fields(rule), ">hunter2")...)
		e := accepts(t, "redis://app"+grace+":hunter2@"+server.Addr()+parameters)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()

		first := request("a")
		first.Wait = true // for the grace
		var err error
		comesTrue(t, "the lock is granted", func() bool {
			_, err = e.Acquire(ctx, first)
			return err == nil || errors.Is(err, context.DeadlineExceeded)
		})
		second := request("a")
		second.Token, second.Wait = driver.Token{2}, true
		granted := make(chan error, 1)
		go func() {
			_, err := e.Acquire(ctx, second)
			granted <- err
		}()
		comesTrue(t, "somebody waits", func() bool {
			info, e := e.Inspect(ctx, "a")
			err = e
			return err != nil || info.Waiters == 1
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Release(ctx, driver.Claim{Name: "a", Token: first.Token}); err != nil {
			t.Error(err)
		}
		if err := <-granted; err != nil {
			t.Error(err)
		}
		for i := range 2 {
			read := request("r")
			read.Token, read.Mode = driver.Token{3, byte(i)}, driver.Shared
			if _, err := e.Acquire(ctx, read); err != nil {
				t.Error(err)
			}
		}
		if all, err := e.List(ctx, "", 10); err != nil || len(all) != 2 {
			t.Errorf("%v, %v; want two names", all, err)
		}
		if _, err := e.Break(ctx, driver.BreakRequest{Name: "r", Reason: "why"}); err != nil {
			t.Error(err)
		}
	}
}

// TestNoPermission: an error for want of permission says what the user needs, also when it was
// a script that met it.
func TestNoPermission(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, testserver.RedisOptions{Users: []string{
		"call on >hunter2 ~* &* +@all -evalsha -eval",
		"start on >hunter2 ~* &* +@all -time",
		"key on >hunter2 ~* &* +@all -set",
	}})
	for _, user := range []string{"call", "start", "key"} {
		e := accepts(t, "redis://"+user+":hunter2@"+server.Addr())
		_, err := e.Acquire(t.Context(), request("a"))
		var d *driver.Error
		if !errors.As(err, &d) || d.Kind != driver.Unavailable || !strings.Contains(err.Error(), "ACL SETUSER") {
			t.Errorf("%s: %v, want unavailable and what the user needs", user, err)
		}
	}
}
