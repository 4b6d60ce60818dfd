package main

import (
	"context"
	"time"

	"github.com/holdfast-go/holdfast"
	_ "github.com/holdfast-go/holdfast/redislock"
)

var holdfastAdapters = []adapter{
	{name: "holdfast", kind: ours, about: "Mutex on redislock, defaults", open: holdfastAt("redis://")},
	{
		name: "holdfast-gated", kind: ours, about: "the same at CrashSafe: what the gate of failovers costs",
		open: openGated,
	},
	{
		name: "holdfast-async", kind: ours, about: "the same, the release is not waited for",
		open: holdfastAt("redis://", holdfast.WithAsyncUnlock()),
	},
}

type holdfastPeer struct {
	client  *holdfast.Client
	options []holdfast.Option
}

// openGated opens a client behind the gate, and waits until the server's first grace is over.
func openGated(addr string) (peer, error) {
	const maxTTL = 3 * time.Second
	p, err := openHoldfast("redis://" + addr + "?failover-grace=crash&max-ttl=" + maxTTL.String())
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

// holdfastAt returns what opens a client at an address, which is a URL when scheme stands
// before it.
func holdfastAt(scheme string, options ...holdfast.Option) func(addr string) (peer, error) {
	return func(addr string) (peer, error) { return openHoldfast(scheme+addr, options...) }
}

func openHoldfast(url string, options ...holdfast.Option) (peer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client, err := holdfast.Open(ctx, url, holdfast.Config{})
	if err != nil {
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
