package zklock_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/zklock"
)

func issueInvoice(ctx context.Context, fence int64) error { return ctx.Err() }

// With the URL of an ensemble. The blank import of zklock is what makes the scheme known.
// Java services that use InterProcessMutex on /locks/invoice:2026 are excluded.
func Example() {
	ctx := context.Background()
	hf, err := holdfast.Open(ctx, "zk://h1:2181,h2:2181,h3:2181/locks", holdfast.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer hf.Close()
	err = hf.Mutex("invoice:2026").Do(ctx, func(ctx context.Context, l *holdfast.Lease) error {
		return issueInvoice(ctx, l.Fence())
	})
	switch {
	case errors.Is(err, holdfast.ErrLost):
		log.Print("stopped: the lock was lost while we held it")
	case errors.Is(err, holdfast.ErrUnavailable):
		log.Print("ZooKeeper did not answer: ", err)
	case err != nil:
		log.Print(err)
	}
}

// Sessions of 15 s carry leases of 5 s, and the locks of a process that died are free after
// 15 s. Only this user can touch the nodes.
func ExampleOpen() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	e, err := zklock.Open(ctx, "zk://h1,h2,h3/locks", zklock.Config{
		SessionTimeout: 15 * time.Second, User: "billing", Password: "secret",
	})
	if err != nil {
		log.Fatal(err)
	}
	hf, err := holdfast.New(e, holdfast.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer hf.Close() // closes the engine and its session
}

// Without a URL, over TLS: servers on their secureClientPort, who demand a certificate.
func ExampleNew() {
	pair, err := tls.LoadX509KeyPair("/etc/zookeeper/app.pem", "/etc/zookeeper/app.key")
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	e, err := zklock.New(ctx, []string{"h1:2281", "h2:2281", "h3:2281"}, zklock.Config{
		Root: "/locks", TLS: &tls.Config{Certificates: []tls.Certificate{pair}},
	})
	if err != nil {
		log.Fatal(err)
	}
	hf, err := holdfast.New(e, holdfast.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer hf.Close()
}

// With ReadWrite, Mutex.Lock and RWMutex.Lock are write locks of Curator's
// InterProcessReadWriteLock, and RLock its read locks.
func ExampleRecipe() {
	e, err := zklock.Open(context.Background(), "zk://h1,h2,h3/locks", zklock.Config{Recipe: zklock.ReadWrite})
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
}
