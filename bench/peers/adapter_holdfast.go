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
		name: "holdfast-gated", kind: ours, about: "the same at CrashSafe: what the gate of failovers costs",
		open: openGated,
	},
	{
		name: "holdfast-async", kind: ours, about: "the same, the release is not waited for",
		open: func(addr string) (peer, error) { return openHoldfast(addr, holdfast.WithAsyncUnlock()) },
	},
}

type holdfastPeer struct {
	client  *holdfast.Client
	options []holdfast.Option
}

// openGated opens a client behind the gate, and waits until the server's first grace is over.
func openGated(addr string) (peer, error) {
	const maxTTL = 3 * time.Second
	p, err := openHoldfast(addr + "?failover-grace=crash&max-ttl=" + maxTTL.String())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*maxTTL)
	defer cancel()
	l := p.locker("grace")
	if err := l.lock(ctx); err != nil {
		_ = p.close()
		return nil, err
	}
	return p, l.unlock()
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
