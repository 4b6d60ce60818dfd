package redislock_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/testserver"
	"github.com/redis/go-redis/v9"
)

// refusal is a state in which a server answers everything, or all that writes, with an error.
type refusal struct {
	name     string
	enter    func(l *lab)
	leave    func(l *lab)
	says     []string // the server's code, and words of the remedy
	releases bool     // what is held can be given back all the same
	config   []string
}

var refusals = []refusal{{
	name:     "OOM",
	enter:    func(l *lab) { l.do("CONFIG", "SET", "maxmemory", "1mb") },
	leave:    func(l *lab) { l.do("CONFIG", "SET", "maxmemory", "0") },
	says:     []string{"OOM", "maxmemory)"},
	releases: true,
}, {
	name:  "NOREPLICAS",
	enter: func(l *lab) { l.do("CONFIG", "SET", "min-replicas-to-write", "1") },
	leave: func(l *lab) { l.do("CONFIG", "SET", "min-replicas-to-write", "0") },
	says:  []string{"NOREPLICAS", "min-replicas-to-write"},
}, {
	name:  "READONLY",
	enter: func(l *lab) { l.do("REPLICAOF", "127.0.0.1", "1") },
	leave: func(l *lab) { l.do("REPLICAOF", "NO", "ONE") },
	says:  []string{"READONLY", "connect to the master"},
}, {
	name: "MASTERDOWN",
	enter: func(l *lab) {
		l.do("CONFIG", "SET", "replica-serve-stale-data", "no")
		l.do("REPLICAOF", "127.0.0.1", "1")
	},
	leave: func(l *lab) { l.do("REPLICAOF", "NO", "ONE") },
	says:  []string{"MASTERDOWN", "connect to the master"},
}, {
	name: "MISCONF",
	enter: func(l *lab) {
		dir := l.list("CONFIG", "GET", "dir")[1]
		if err := os.MkdirAll(filepath.Join(dir, "dump.rdb", "in the way"), 0o700); err != nil {
			l.Fatal(err)
		}
		l.do("CONFIG", "SET", "save", "3600 1000000")
		l.do("BGSAVE")
		l.eventually("a save that fails", func() bool {
			info, err := l.server.Info()
			return err == nil && info["rdb_last_bgsave_status"] == "err"
		})
	},
	leave: func(l *lab) { l.do("CONFIG", "SET", "stop-writes-on-bgsave-error", "no") },
	says:  []string{"MISCONF", "disk"},
}, {
	name: "BUSY",
	enter: func(l *lab) {
		l.do("CONFIG", "SET", "lua-time-limit", "50")
		c, err := l.server.Dial()
		if err == nil {
			err = c.Send("EVAL", "while true do end", "0")
		}
		if err != nil {
			l.Fatal(err)
		}
		l.Cleanup(func() { c.Close() })
		l.eventually("a server that is busy", func() bool {
			_, err := l.server.Do("PING")
			return err != nil && strings.HasPrefix(err.Error(), "BUSY")
		})
	},
	leave: func(l *lab) {
		l.eventually("the end of the script", func() bool {
			_, _ = l.server.Do("SCRIPT", "KILL")
			_, err := l.server.Do("PING")
			return err == nil
		})
	},
	says: []string{"BUSY", "SCRIPT KILL"},
}}

// A server that refuses to work gives errors that say so and what to do, and nothing else
// happens: no lock, no storm of repeats. What is held comes back, at once where the server
// allows it, when it is over otherwise.
func TestFaultRefused(t *testing.T) {
	for _, r := range refusals {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, testserver.RedisOptions{Config: r.config})
			if r.name == "OOM" && before7(t, l.server) {
				t.Skip("Redis 6.2 lets a script go on that has written something: locks are granted")
			}
			c := l.application(l.server.Addr())
			kept := l.lock(c, "kept", holdfast.WithoutRenewal())
			given := l.lock(c, "given", holdfast.WithoutRenewal())
			r.enter(l)
			refusedCalls(l, c, r)
			err := given.Unlock()
			if r.releases {
				if err != nil {
					l.Errorf("unlock: %v", err)
				}
			} else {
				l.failed(err, holdfast.ErrUnavailable, holdfast.NotApplied, r.says...)
			}
			r.leave(l)
			l.eventually("the lock that was given back is free", func() bool { return l.free("given") })
			if err := kept.Extend(l.patience(), labTTL); err != nil {
				l.Errorf("extend when it was over: %v", err)
			}
			l.unlock(kept)
			for _, name := range []string{"try", "wait", "read", "permits"} {
				l.unlock(l.lock(c, name))
			}
		})
	}
}

// refusedCalls makes calls of every kind that ask for something. None leaves anything.
func refusedCalls(l *lab, c *holdfast.Client, r refusal) {
	l.Helper()
	ctx := l.patience()
	_, err := c.Mutex("try").TryLock(ctx)
	l.failed(err, holdfast.ErrUnavailable, holdfast.NotApplied, r.says...)
	_, err = c.Mutex("wait").Lock(ctx)
	l.failed(err, holdfast.ErrUnavailable, holdfast.NotApplied, r.says...)
	_, err = c.RWMutex("read").RLock(ctx)
	l.failed(err, holdfast.ErrUnavailable, holdfast.NotApplied, r.says...)
	_, err = c.Semaphore("permits", 2).Acquire(ctx, 1)
	l.failed(err, holdfast.ErrUnavailable, holdfast.NotApplied, r.says...)
	if ctx.Err() != nil {
		l.Error("the refusals took until the end of the context")
	}
}

// The server has just restarted and reads its data.
func TestFaultLoading(t *testing.T) {
	t.Parallel()
	// While it reads it looks at its connections every two megabytes.
	l := newLab(t, testserver.RedisOptions{Config: []string{"key-load-delay 300", "rdbcompression no"}})
	c := l.application(l.server.Addr())
	lease := l.lock(c, "name")
	l.do("EVAL", "for i = 1, 10000 do redis.call('SET', 'key:' .. i, string.rep('x', 4000)) end", "0")
	l.do("SAVE")
	restarted := make(chan struct{})
	go func() {
		defer close(restarted)
		l.server.Restart()
	}()
	var err error
	l.eventually("a server that loads", func() bool {
		_, err = c.Mutex("other").TryLock(l.patience())
		return err != nil && strings.Contains(err.Error(), "LOADING")
	})
	l.failed(err, holdfast.ErrUnavailable, holdfast.NotApplied, "try again")
	<-restarted
	l.unlock(lease)
	l.unlock(l.lock(c, "other"))
}

// There is no memory between the release and the next grant: the waiter gets the lock by the
// same rules, and what it believes is what the server has.
func TestFaultOutOfMemoryAtHandover(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	c, other := l.process(), l.process()
	lease := l.lock(c, "pushed")
	l.do("SET", "holdfast:polled", "of another library")
	pushed, polled := l.waiter(other, "pushed"), l.waiter(other, "polled")
	l.do("CONFIG", "SET", "maxmemory", "1mb")
	l.unlock(lease)
	l.do("DEL", "holdfast:polled")
	before := l.scripts()
	time.Sleep(1500 * time.Millisecond) // polls in which there is no memory
	if n := l.scripts() - before; n > 50 {
		l.Errorf("%d script calls in 1.5 s", n)
	}
	l.do("CONFIG", "SET", "maxmemory", "0")
	for _, w := range []*waiter{pushed, polled} {
		lease := w.granted()
		if info, err := c.Inspect(l.patience(), lease.Name()); err != nil || info.Fence != lease.Fence() {
			l.Errorf("the lease has fence %d, the server %+v (%v)", lease.Fence(), info, err)
		}
		l.unlock(lease)
		if !l.free(lease.Name()) {
			l.Errorf("%q is left", l.key(lease.Name()))
		}
	}
}

// Wrong credentials, from the start or after a change, fail closed and tell no secrets.
func TestFaultCredentials(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{Password: "sesame"})
	as := func(user, password string) *holdfast.Client {
		return l.application(l.server.Addr(), func(o *redis.Options) { o.Username, o.Password = user, password })
	}
	refused := func(c *holdfast.Client, texts ...string) {
		l.Helper()
		_, err := c.Mutex("name").TryLock(l.patience())
		l.failed(err, holdfast.ErrUnavailable, holdfast.NotApplied, texts...)
		for _, secret := range []string{"sesame", "hunter2", "guessed"} {
			if strings.Contains(err.Error(), secret) {
				l.Errorf("error %q tells the secret %q", err, secret)
			}
		}
	}
	refused(as("", ""), "password")
	refused(as("", "guessed"), "WRONGPASS", "check user and password")
	refused(as("nobody", "guessed"), "WRONGPASS", "check user and password")
	for _, url := range []string{"redis://", "redis://:guessed@", "redis://nobody:guessed@"} {
		_, err := holdfast.Open(l.patience(), url+l.server.Addr(), holdfast.Config{})
		l.failed(err, holdfast.ErrUnavailable, holdfast.NotApplied, "password")
		if strings.Contains(err.Error(), "guessed") {
			l.Errorf("error %q tells the password", err)
		}
	}
	l.unlock(l.lock(as("", "sesame"), "name"))

	// The password is changed under a client that holds something.
	l.do("ACL", "SETUSER", "app", "on", ">hunter2", "~*", "&*", "+@all")
	app := as("app", "hunter2")
	lease := l.lock(app, "held")
	l.do("ACL", "SETUSER", "app", "resetpass", ">rotated")
	l.do("CLIENT", "KILL", "USER", "app")
	refused(app, "WRONGPASS")
	l.failed(lease.Unlock(), holdfast.ErrUnavailable, holdfast.NotApplied, "WRONGPASS")
	l.do("CONFIG", "RESETSTAT")
	time.Sleep(time.Second)
	if info, err := l.server.Info(); err != nil || statOf(info["cmdstat_hello"], "calls") > 20 {
		l.Errorf("in a second: HELLO %s, %v", info["cmdstat_hello"], err)
	}
	l.do("ACL", "SETUSER", "app", "resetpass", ">hunter2")
	l.eventually("the lock that was given back is free", func() bool { return l.free("held") })
}

// The server takes no more clients: who is connected goes on, who is not is told why.
func TestFaultMaxClients(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	admin, err := l.server.Dial()
	if err != nil {
		l.Fatal(err)
	}
	defer admin.Close()
	c := l.application(l.server.Addr(), func(o *redis.Options) { o.PoolSize = 1 })
	lease := l.lock(c, "name")
	late := l.application(l.server.Addr())
	if _, err := admin.Do("CONFIG", "SET", "maxclients", "1"); err != nil {
		l.Fatal(err)
	}
	_, err = late.Mutex("other").TryLock(l.patience())
	// Whether the server's message is read before its end of the connection is a matter of luck.
	if !errors.Is(err, holdfast.ErrUnavailable) || !strings.Contains(err.Error(), "maxclients") {
		l.Errorf("error is %v, want ErrUnavailable and the setting", err)
	}
	if err := lease.Extend(l.patience(), labTTL); err != nil {
		l.Errorf("extend: %v", err)
	}
	if _, err := admin.Do("CONFIG", "SET", "maxclients", "1000"); err != nil {
		l.Fatal(err)
	}
	l.unlock(lease)
	l.unlock(l.lock(late, "other"))
}

// Nobody is there: the error names the address, and the wait ends with the context.
func TestFaultNobodyListens(t *testing.T) {
	t.Parallel()
	l := newLab(t, testserver.RedisOptions{})
	p := testserver.Proxy(t, l.server.Addr())
	c := l.application(p.Addr())
	lease := l.lock(c, "name")
	p.Refuse()
	p.Cut()
	_, err := c.Mutex("other").TryLock(l.patience())
	if !errors.Is(err, holdfast.ErrUnavailable) {
		l.Errorf("error is %v", err)
	}
	_, err = c.Mutex("other").TryLock(l.patience()) // what was open is used up by now
	l.failed(err, holdfast.ErrUnavailable, holdfast.NotApplied, p.Addr())
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err = c.Mutex("other").Lock(ctx); !errors.Is(err, holdfast.ErrUnavailable) {
		l.Errorf("error is %v", err)
	}
	p.Allow()
	l.eventually("the server is back", func() bool {
		other, err := c.Mutex("other").TryLock(l.patience())
		return err == nil && other.Unlock() == nil
	})
	l.unlock(lease)
}
