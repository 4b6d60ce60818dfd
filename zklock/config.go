package zklock

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/holdfast-go/holdfast/driver"
)

// Recipe says with which of Curator's recipes an Exclusive share excludes Java services. All
// holdfast shares of a name exclude each other whatever the recipe.
type Recipe uint8

// The recipes.
const (
	// Mutex makes Exclusive shares nodes of InterProcessMutex. Curator's InterProcessMutex
	// and they exclude each other; its InterProcessReadWriteLock on the same path does not
	// see them, and neither sees the other there in Curator itself.
	Mutex Recipe = iota

	// ReadWrite makes Exclusive shares write locks of InterProcessReadWriteLock, which
	// InterProcessMutex does not see.
	ReadWrite
)

// Defaults and bounds of Config, and the TTLs of this engine.
const (
	// DefaultRoot is the default of Config.Root.
	DefaultRoot = "/holdfast"

	// DefaultSessionTimeout is the default of Config.SessionTimeout.
	DefaultSessionTimeout = 30 * time.Second

	// MinTTL is the shortest TTL. The longest is a third of the session's timeout.
	MinTTL = 100 * time.Millisecond

	// MaxPermits is the largest limit of a semaphore. Every permit is a node.
	MaxPermits = 1000
)

// sessionShare is the part of a session's timeout that a lease may last: see Capabilities.
const sessionShare = 3

// Config configures an engine. The zero value is ready for use.
type Config struct {
	// Root is the path below which all locks are: the lock of name n is the node Root/n, in
	// Curator's terms. An absolute path, not "/" itself, and not below /zookeeper; it is
	// created where it is missing. Default "/holdfast"; the path of a URL comes before it.
	Root string

	// Recipe says how Exclusive shares look to Curator. Default Mutex.
	Recipe Recipe

	// SessionTimeout is what is asked of the servers. They bound it by their own settings
	// (minSessionTimeout and maxSessionTimeout, by default 4 s and 40 s). A third of what is
	// agreed is the longest TTL of a lease, and the default one. The locks of a process that
	// died or was cut off are free when its session ends: up to this time, and a tick of the
	// servers, later. 300 ms to 1 h, whole milliseconds; default 30 s.
	SessionTimeout time.Duration

	// Timeout is how long a server may owe an answer, and a connection may take to be made,
	// before the session moves to another server. 10 ms to a third of SessionTimeout;
	// default a twelfth of it.
	Timeout time.Duration

	// User and Password are sent as digest authentication. Default: none. Setting one
	// without the other is an error.
	User, Password string

	// TLS encrypts the connections. A server is checked for the host under which it was
	// named, unless TLS.ServerName says otherwise. Default: none, or what a zks URL says.
	// It is read for as long as the engine lives: do not change it.
	TLS *tls.Config

	// Dialer makes the connections, in place of net.DialTimeout: for proxies, and for
	// networks of tests. It is called by one goroutine after the other, also long after the
	// opening, and must not take much longer than the timeout that it is told, which is
	// Timeout. TLS is put upon what it returns.
	Dialer zk.Dialer

	// ACL is what all nodes are created with. Default: all permissions for everybody, or for
	// User alone if there is one.
	ACL []zk.ACL

	_ struct{}
}

func (c Config) withDefaults() Config {
	if c.Root == "" {
		c.Root = DefaultRoot
	}
	if c.SessionTimeout == 0 {
		c.SessionTimeout = DefaultSessionTimeout
	}
	if c.Timeout == 0 {
		c.Timeout = max(10*time.Millisecond, c.SessionTimeout/12)
	}
	if c.Dialer == nil {
		c.Dialer = net.DialTimeout
	}
	if c.ACL == nil {
		c.ACL = zk.WorldACL(zk.PermAll)
		if c.User != "" {
			c.ACL = zk.AuthACL(zk.PermAll)
		}
	}
	return c
}

// validate returns every violation.
func (c Config) validate() error {
	var errs []error
	check := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	why := badRoot(c.Root)
	check(why != "", "Root is %.64q: %s", c.Root, why)
	check(c.Recipe > ReadWrite, "Recipe is %d: use one of the constants", c.Recipe)
	check(c.SessionTimeout < sessionShare*MinTTL || c.SessionTimeout > time.Hour || c.SessionTimeout%time.Millisecond != 0,
		"SessionTimeout is %v: it must be %v to 1h, in whole milliseconds", c.SessionTimeout, sessionShare*MinTTL)
	check(c.Timeout < 10*time.Millisecond || c.Timeout > c.SessionTimeout/3,
		"Timeout is %v: it must be 10ms to a third of SessionTimeout, which is %v", c.Timeout, c.SessionTimeout)
	check((c.User == "") != (c.Password == ""), "either User or Password is missing: set both or neither")
	check(strings.Contains(c.User, ":"), "User contains a colon: digest authentication has no room for it")
	check(len(c.ACL) == 0, "ACL is empty: nobody could touch the nodes; leave it nil for the default")
	if len(errs) > 0 {
		return driver.Fail(driver.Invalid, errors.Join(errs...))
	}
	return nil
}

// badRoot says what is wrong with a path, or nothing.
func badRoot(root string) string {
	switch {
	case !strings.HasPrefix(root, "/"), root == "/":
		return "give an absolute path such as /locks"
	case len(root) > 512:
		return "shorten it to 512 bytes"
	case root == "/zookeeper", strings.HasPrefix(root, "/zookeeper/"):
		return "the servers keep that path for themselves; choose another"
	}
	for element := range strings.SplitSeq(root[1:], "/") {
		if element == "" || element == "." || element == ".." {
			return "leave out empty elements, . and .."
		}
	}
	for _, r := range root {
		if r < ' ' || r > '~' {
			return "use printable ASCII"
		}
	}
	return ""
}
