package driver

import "time"

// Scope is how far an engine's locks reach.
type Scope string

// The scopes.
const (
	Process Scope = "process"
	Machine Scope = "machine"
	Cluster Scope = "cluster"
)

// Capabilities says what an engine can do and what it promises. Fields that describe
// abilities are false or empty where the engine lacks them.
type Capabilities struct {
	// Engine is the name of the engine's package, for example "memlock".
	Engine string `json:"engine"`

	// Instance tells apart two servers of the same engine, for example host and port. It
	// never contains secrets.
	Instance string `json:"instance,omitempty"`

	// Scope is who is excluded: the goroutines of a process, the processes of a machine, or
	// the machines of a cluster.
	Scope Scope `json:"scope"`

	// Shared, Upgradeable and Permits say which modes beside Exclusive exist.
	Shared      bool `json:"shared"`
	Upgradeable bool `json:"upgradeable"`
	Permits     bool `json:"permits"`

	// Expires says that the engine itself ends a share that was not renewed for its TTL.
	// Where it is false a share lives until it is released or its process ends, and
	// renewal only checks that it is still there.
	Expires bool `json:"expires"`

	// FIFO says that waiting requests are served in the order in which they came.
	FIFO bool `json:"fifo"`

	// Push says that a waiter is woken by the engine; otherwise it looks again by itself.
	Push bool `json:"push"`

	// Holders says that a Held answer and Inspect name the holder.
	Holders bool `json:"holders"`

	// MinTTL and MaxTTL bound the TTL, and DefaultTTL is what a handle uses that names none.
	// Resolution is the step to which TTLs are rounded up.
	MinTTL     time.Duration `json:"min_ttl"`
	MaxTTL     time.Duration `json:"max_ttl"`
	DefaultTTL time.Duration `json:"default_ttl"`
	Resolution time.Duration `json:"resolution"`

	// MaxPermits is the largest Limit of a semaphore.
	MaxPermits int `json:"max_permits,omitempty"`

	// Safety says in one line when the exclusion holds and what ends it, for people.
	Safety string `json:"safety"`

	// FenceSource says in one line where fences come from and what breaks their order.
	FenceSource string `json:"fence_source"`

	// Clock is what Grant.Sent is read from and leases are timed by. Nil means [BootClock].
	Clock Clock `json:"-"`
}
