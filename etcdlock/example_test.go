package etcdlock_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/etcdlock"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func issueInvoice(ctx context.Context, fence int64) error { return ctx.Err() }

// With the URL of a cluster. The blank import of etcdlock is what makes the scheme known.
func Example() {
	ctx := context.Background()
	hf, err := holdfast.Open(ctx, "etcds://app:secret@h1,h2,h3?ca=/etc/etcd/ca.pem", holdfast.Config{})
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
		log.Print("etcd did not answer: ", err)
	case err != nil:
		log.Print(err)
	}
}

// On the client that the program has open already. New sends nothing.
func ExampleNew() {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"127.0.0.1:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	e, err := etcdlock.New(client, etcdlock.Config{})
	if err != nil {
		log.Fatal(err)
	}
	hf, err := holdfast.New(e, holdfast.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer hf.Close() // before the client is closed

	fmt.Println(e.Capabilities().DefaultTTL, e.Capabilities().Scope)
	// Output: 10s cluster
}

// Open with a deadline of its own, and the settings that the URL does not have.
func ExampleOpen() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	e, err := etcdlock.Open(ctx, "etcd://h1:2379,h2:2379,h3:2379?prefix=jobs/", etcdlock.Config{Timeout: 2 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	hf, err := holdfast.New(e, holdfast.Config{TTL: 5 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	defer hf.Close() // closes the engine and its connections
}

// A write that takes effect only while the lock stands, whatever became of its holder.
func ExampleEngine_Guard() {
	ctx := context.Background()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"h1:2379", "h2:2379", "h3:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	e, err := etcdlock.New(client, etcdlock.Config{})
	if err != nil {
		log.Fatal(err)
	}
	hf, err := holdfast.New(e, holdfast.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer hf.Close()
	err = hf.Mutex("balance").Do(ctx, func(ctx context.Context, l *holdfast.Lease) error {
		resp, err := client.Txn(ctx).If(e.Guard(l)).Then(clientv3.OpPut("balance", "17")).Commit()
		if err == nil && !resp.Succeeded {
			err = holdfast.ErrLost
		}
		return err
	})
	if err != nil {
		log.Print(err)
	}
}

// What an administrator has to enter.
func ExampleEngine_Permissions() {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"127.0.0.1:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	e, err := etcdlock.New(client, etcdlock.Config{Prefix: "billing/"})
	if err != nil {
		log.Fatal(err)
	}
	defer e.Close()
	fmt.Println(e.Permissions("billing"))
	// Output:
	// etcdctl role add billing
	// etcdctl role grant-permission --prefix=true billing readwrite "billing/"
}
