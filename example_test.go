package holdfast_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/memlock"
)

func issueInvoice(ctx context.Context, fence int64) error {
	fmt.Println("issued, fence is positive:", fence > 0)
	return ctx.Err()
}

// The safe way to hold a lock: the function's context ends when the lock is lost.
func Example() {
	ctx := context.Background()
	hf, err := holdfast.Open(ctx, "mem://", holdfast.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer hf.Close()
	err = hf.Mutex("invoice:2026").Do(ctx, func(ctx context.Context, l *holdfast.Lease) error {
		return issueInvoice(ctx, l.Fence())
	})
	fmt.Println(err)
	// Output:
	// issued, fence is positive: true
	// <nil>
}

func ExampleMutex_TryLock() {
	ctx := context.Background()
	hf, _ := holdfast.New(memlock.New(memlock.Config{}), holdfast.Config{Owner: "web-1/42"})
	defer hf.Close()

	m := hf.Mutex("nightly-report")
	l, err := m.TryLock(ctx)
	fmt.Println("first:", err)

	_, err = m.TryLock(ctx)
	var e *holdfast.Error
	if errors.Is(err, holdfast.ErrHeld) && errors.As(err, &e) {
		fmt.Println("second: held by", e.Holder.Owner)
	}
	fmt.Println(l.Unlock())
	// Output:
	// first: <nil>
	// second: held by web-1/42
	// <nil>
}

func ExampleRWMutex() {
	ctx := context.Background()
	hf, _ := holdfast.New(memlock.New(memlock.Config{}), holdfast.Config{})
	defer hf.Close()

	rw := hf.RWMutex("price-list")
	one, _ := rw.RLock(ctx)
	two, _ := rw.TryRLock(ctx)
	_, err := rw.TryLock(ctx)
	fmt.Println("writer beside two readers:", errors.Is(err, holdfast.ErrHeld))
	one.Unlock()
	two.Unlock()
	// Output:
	// writer beside two readers: true
}

// An upgradeable reader reads first and decides then whether it has to write.
func ExampleLease_Upgrade() {
	ctx := context.Background()
	hf, _ := holdfast.New(memlock.New(memlock.Config{}), holdfast.Config{})
	defer hf.Close()

	l, err := hf.RWMutex("price-list").LockUpgradeable(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer l.Unlock()
	before := l.Fence()
	if err := l.Upgrade(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("the writer has a larger fence:", l.Fence() > before)
	// Output:
	// the writer has a larger fence: true
}

func ExampleSemaphore() {
	ctx := context.Background()
	hf, _ := holdfast.New(memlock.New(memlock.Config{}), holdfast.Config{})
	defer hf.Close()

	uploads := hf.Semaphore("uploads", 5)
	big, _ := uploads.Acquire(ctx, 4)
	_, err := uploads.TryAcquire(ctx, 2)
	fmt.Println("2 more of 5:", errors.Is(err, holdfast.ErrHeld))
	big.Unlock()
	// Output:
	// 2 more of 5: true
}

// LockAll takes several locks or none, in an order that cannot deadlock.
func ExampleLockAll() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	hf, _ := holdfast.New(memlock.New(memlock.Config{}), holdfast.Config{})
	defer hf.Close()

	both, err := holdfast.LockAll(ctx, hf.Mutex("account:7"), hf.Mutex("account:3"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("held:", len(both.All()))
	fmt.Println(both.Unlock())
	// Output:
	// held: 2
	// <nil>
}

// A test can make a lock be lost and see what the program does about it.
func ExampleLease_Context() {
	store := memlock.NewStore(memlock.Config{})
	hf, _ := holdfast.New(store.Engine(), holdfast.Config{TTL: 30 * time.Millisecond})
	defer hf.Close()

	err := hf.Mutex("job").Do(context.Background(), func(ctx context.Context, l *holdfast.Lease) error {
		store.Lose("job")
		<-ctx.Done()
		return fmt.Errorf("stopped: %w", context.Cause(ctx))
	})
	fmt.Println(errors.Is(err, holdfast.ErrLost))
	// Output:
	// true
}
