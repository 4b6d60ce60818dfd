package driver

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"sync"
)

// Scheme describes how URLs of one scheme are opened.
type Scheme struct {
	// Name is the scheme, for example "mem".
	Name string

	// Example is a URL to show in messages.
	Example string

	// Open opens the engine that u names. Open must answer with an error that says which
	// part of the URL is wrong, for parameters that it does not know as well; [Settings]
	// helps. The core has taken its own parameters out of u.
	Open func(ctx context.Context, u *url.URL) (Engine, error)

	// Capabilities is what an engine opened with the defaults says of itself, so that a
	// table of engines can be shown without opening any.
	Capabilities Capabilities
}

var schemes struct {
	sync.RWMutex
	byName map[string]Scheme
}

// Register makes URLs of s.Name known to holdfast.Open. Engine packages call it from init.
// It panics when the scheme is registered already: two engines for one scheme is a mistake
// in how the program was put together.
func Register(s Scheme) {
	schemes.Lock()
	defer schemes.Unlock()
	if _, dup := schemes.byName[s.Name]; dup || s.Name == "" || s.Open == nil {
		panic(fmt.Sprintf("driver: scheme %q registered twice, or without a name or Open", s.Name))
	}
	if schemes.byName == nil {
		schemes.byName = make(map[string]Scheme)
	}
	schemes.byName[s.Name] = s
}

// Lookup returns the scheme of that name.
func Lookup(name string) (Scheme, bool) {
	schemes.RLock()
	defer schemes.RUnlock()
	s, ok := schemes.byName[name]
	return s, ok
}

// Schemes returns all registered schemes, ordered by name.
func Schemes() []Scheme {
	schemes.RLock()
	defer schemes.RUnlock()
	return slices.SortedFunc(maps.Values(schemes.byName), func(a, b Scheme) int {
		switch {
		case a.Name < b.Name:
			return -1
		case a.Name > b.Name:
			return 1
		}
		return 0
	})
}
