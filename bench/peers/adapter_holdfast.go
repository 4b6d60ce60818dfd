package main

import (
	"context"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/redislock"
)

var holdfastAdapters = []adapter{
	{name: "holdfast", kind: ours, about: "Mutex on redislock, defaults", open: func(addr string) (peer, error) { return openHoldfast(addr) }},
	{
		name: "holdfast-async", kind: ours, about: "the same, the release is not waited for",
		open: func(addr string) (peer, error) { return openHoldfast(addr, holdfast.WithAsyncUnlock()) },
	},
}

type holdfastPeer struct {
	client  *holdfast.Client
	options []holdfast.Option
}

func openHoldfast(addr string, options ...holdfast.Option) (peer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	engine, err := redislock.Open(ctx, "redis://"+addr, redislock.Config{})
	if err != nil {
		return nil, err
	}
	client, err := holdfast.New(engine, holdfast.Config{})
	if err != nil {
		_ = engine.Close()
		return nil, err
	}
	return holdfastPeer{client, options}, nil
}

func (p holdfastPeer) locker(key string) locker {
	return &holdfastLock{mutex: p.client.Mutex(key, p.options...)}
}
func (p holdfastPeer) close() error { return p.client.Close() }

type holdfastLock struct {
	mutex *holdfast.Mutex
	lease *holdfast.Lease
}

func (l *holdfastLock) lock(ctx context.Context) (err error) {
	l.lease, err = l.mutex.Lock(ctx)
	return err
}

func (l *holdfastLock) unlock() error { return l.lease.Unlock() }
