package redislock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/holdfast-go/holdfast/redislock"
	"github.com/redis/go-redis/v9"
)

// user makes the user "app" with what the engine says that it needs.
func (l *lab) user(e *redislock.Engine) {
	l.Helper()
	l.do(append(strings.Fields(e.ACL("app")), ">hunter2")...)
}

// change changes the rights of the user.
func (l *lab) change(rules ...string) {
	l.Helper()
	l.do(append([]string{"ACL", "SETUSER", "app"}, rules...)...)
}

func asUser(o *redis.Options) { o.Username, o.Password = "app", "hunter2" }

// A user with the rights that the engine names can do everything, on any database and with any
// prefix, and the server has nothing to refuse.
func TestFaultPermissionsSuffice(t *testing.T) {
	t.Parallel()
	for _, cfg := range []redislock.Config{
		{}, {Prefix: "my app[1]*?:"}, {Prefix: `back\slash:`}, {RawKeys: true}, {Safety: redislock.CrashSafe, MaxTTL: time.Second},
	} {
		for _, db := range []int{0, 3} {
			if db > 0 && cfg != (redislock.Config{}) {
				continue
			}
			name := fmt.Sprintf("prefix %q, database %d, %v", cfg.Prefix, db, cfg.Safety)
			t.Run(name, func(t *testing.T) { permissionsSuffice(t, cfg, db) })
		}
	}
}

func permissionsSuffice(t *testing.T, cfg redislock.Config, db int) {
	l := newLab(t, testserver.RedisOptions{})
	open := func() (*redislock.Engine, *holdfast.Client) {
		r := redis.NewClient(&redis.Options{
			Addr: l.server.Addr(), DB: db, ClientName: "lab", Username: "app", Password: "hunter2",
		})
		l.Cleanup(func() { r.Close() })
		e, err := redislock.New(r, cfg)
		if err != nil {
			l.Fatal(err)
		}
		return e, l.clientWith(e, e.Capabilities().DefaultTTL)
	}
	e, c := open()
	_, other := open()
	l.user(e)
	if cfg.Safety == redislock.CrashSafe {
		l.eventually("the end of the grace", func() bool {
			lease, err := c.Mutex("grace").TryLock(l.patience())
			return err == nil && lease.Unlock() == nil
		})
	}
	everything(l, c, other)
	var denied []string
	log, _ := l.do("ACL", "LOG").([]any)
	for _, entry := range log {
		// The library asks for this in its greeting, and does without it: the log of Redis 6.2
		// only says of which command it is a part.
		if text := fmt.Sprint(entry); !strings.Contains(text, "maint_notifications") && !strings.Contains(text, "object client ") {
			denied = append(denied, text)
		}
	}
	if len(denied) > 0 {
		l.Errorf("the server refused:\n%s", strings.Join(denied, "\n"))
	}
}

// everything uses all that the engine can do.
func everything(l *lab, c, other *holdfast.Client) {
	l.Helper()
	ctx := l.patience()
	check := func(what string, err error) {
		l.Helper()
		if err != nil {
			l.Fatalf("%s: %v", what, err)
		}
	}
	take := func(what string) func(*holdfast.Lease, error) *holdfast.Lease {
		return func(lease *holdfast.Lease, err error) *holdfast.Lease { l.Helper(); check(what, err); return lease }
	}
	first := l.lock(c, "mutex")
	waits := l.waits(other, "mutex")
	l.eventually("somebody waits", func() bool {
		info, err := c.Inspect(ctx, "mutex")
		check("inspect", err)
		return info.Waiters == 1
	})
	check("extend", first.Extend(ctx, c.Capabilities().DefaultTTL))
	l.unlock(first)
	l.unlock(waits.granted())

	rw, rwOther := c.RWMutex("rw"), other.RWMutex("rw")
	up := take("upgradeable")(rw.LockUpgradeable(ctx))
	read := take("read")(rwOther.RLock(ctx))
	check("extend", read.Extend(ctx, c.Capabilities().DefaultTTL))
	time.AfterFunc(100*time.Millisecond, func() { _ = read.Unlock() })
	check("upgrade", up.Upgrade(ctx))
	_, err := rwOther.TryRLock(ctx)
	l.failed(err, holdfast.ErrHeld, holdfast.NotApplied)
	l.unlock(up)

	one := take("permits")(c.Semaphore("permits", 3).Acquire(ctx, 2))
	two := take("permits")(other.Semaphore("permits", 3).TryAcquire(ctx, 1))
	infos, err := c.List(ctx, "", 10)
	if check("list", err); len(infos) != 1 || len(infos[0].Holders) != 2 {
		l.Errorf("list: %+v", infos)
	}
	l.unlock(one)
	// Members of a group that run out are struck off by whoever comes next.
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = c.Semaphore("permits", 3).Acquire(short, 3)
	l.failed(err, holdfast.ErrHeld, holdfast.NotApplied)
	info, err := c.Break(ctx, "permits", holdfast.Break{Reason: "test"})
	if check("break", err); len(info.Holders) != 1 {
		l.Errorf("break: %+v", info)
	}
	l.failed(two.Unlock(), holdfast.ErrLost, holdfast.NotApplied)
}

// A right is missing: the error names the line that gives it, and what was held comes back when
// it is there again.
func TestFaultPermissionMissing(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	e := l.applicationEngine(l.server.Addr(), asUser)
	l.user(e)
	c, admin := l.client(e), l.process()
	line := e.ACL("<user>")
	l.unlock(l.lock(c, "warm"))
	for _, without := range []string{"set", "evalsha", "time"} {
		l.change("-" + without)
		_, err := c.Mutex("without " + without).TryLock(l.patience())
		if !errors.Is(err, holdfast.ErrUnavailable) || !strings.Contains(err.Error(), line) {
			l.Errorf("without %s: error is %v, want ErrUnavailable and the rule", without, err)
		}
		l.change("+" + without)
		l.unlock(l.lock(c, "without "+without)) // nothing was left of the try
	}

	for _, without := range []string{"del", "evalsha"} {
		lease := l.lock(c, "held")
		l.change("-" + without)
		err := lease.Unlock()
		if !errors.Is(err, holdfast.ErrUnavailable) || !strings.Contains(err.Error(), line) {
			l.Errorf("unlock without %s: %v, want ErrUnavailable and the rule", without, err)
		}
		l.change("+" + without)
		l.unlock(l.lock(admin, "held")) // long before its TTL is over
	}
}

// One caller's name is beyond the rights of the user. Calls that travelled with it are not
// affected.
func TestFaultPermissionOfOneKey(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	e := l.applicationEngine(l.server.Addr(), asUser)
	l.user(e)
	c := l.client(e)
	l.unlock(l.lock(c, "mine:0"))
	lease := l.lock(c, "mine:held")
	l.change("resetkeys", "~holdfast.*", "~holdfast:mine:*")
	all := make(chan error, 64)
	l.server.Pause() // what is asked meanwhile travels together
	for i := range cap(all) {
		name := fmt.Sprintf("mine:%d", i)
		switch i % 8 {
		case 0:
			name = fmt.Sprintf("foreign:%d", i)
		case 1:
			go func() { all <- lease.Extend(l.patience(), labTTL) }()
			continue
		}
		go func() {
			lease, err := c.Mutex(name).TryLock(l.patience())
			if strings.HasPrefix(name, "foreign") {
				if !errors.Is(err, holdfast.ErrUnavailable) || !strings.Contains(err.Error(), "ACL SETUSER") {
					err = fmt.Errorf("for a key without permission: %w", err)
				} else {
					err = nil
				}
			} else if err == nil {
				err = lease.Unlock()
			}
			all <- err
		}()
	}
	time.Sleep(100 * time.Millisecond)
	l.server.Resume()
	for range cap(all) {
		if err := <-all; err != nil {
			l.Error(err)
		}
	}
	l.unlock(lease)
}

// The inbox is beyond the rights of the user: polls have to do.
func TestFaultPermissionOfInbox(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	e := l.applicationEngine(l.server.Addr(), asUser)
	l.user(e)
	l.change("resetchannels")
	deaf, admin, third := l.client(e), l.process(), l.process()
	for range 2 {
		lease := l.lock(admin, "name")
		w := l.waiter(deaf, "name")
		behind := l.waiter(third, "name")
		l.unlock(lease)
		w2 := behind.granted() // nobody waits for those who do not listen
		l.unlock(w2)
		l.unlock(w.granted())
	}
	// Nor may it tell others: who waits behind it polls.
	lease := l.lock(deaf, "name")
	w := l.waiter(admin, "name")
	l.unlock(lease)
	l.unlock(w.granted())
	if inboxes := l.list("PUBSUB", "CHANNELS"); len(inboxes) != 2 {
		l.Errorf("inboxes %v, want those of the two that may listen", inboxes)
	}
}
