package demo

import (
	"context"
	"fmt"
	"sync"

	"github.com/holdfast-go/holdfast"
)

// strategy is a way to keep requests out of each other's way.
type strategy struct {
	key   string // on command lines and in file names
	title string
	open  func(ctx context.Context, url, lock, owner string) (*guard, error)
}

const withHoldfast = "holdfast"

var strategies = []strategy{
	{key: "none", title: "no lock", open: openNothing},
	{key: "process", title: "in-process lock", open: openProcess},
	{key: withHoldfast, title: "holdfast", open: openHoldfast},
}

// guard runs what has to be done by one at a time. The fence is 0 where there is none.
type guard struct {
	do    func(ctx context.Context, f func(ctx context.Context, fence int64) error) error
	close func() error
}

func openGuard(ctx context.Context, key, url, lock, owner string) (*guard, error) {
	for _, s := range strategies {
		if s.key == key {
			return s.open(ctx, url, lock, owner)
		}
	}
	return nil, fmt.Errorf("strategy %q is not known", key)
}

func openNothing(context.Context, string, string, string) (*guard, error) {
	return &guard{
		do:    func(ctx context.Context, f func(context.Context, int64) error) error { return f(ctx, 0) },
		close: func() error { return nil },
	}, nil
}

func openProcess(context.Context, string, string, string) (*guard, error) {
	var mu sync.Mutex
	return &guard{
		do: func(ctx context.Context, f func(context.Context, int64) error) error {
			mu.Lock()
			defer mu.Unlock()
			return f(ctx, 0)
		},
		close: func() error { return nil },
	}, nil
}

func openHoldfast(ctx context.Context, url, lock, owner string) (*guard, error) {
	hf, err := holdfast.Open(ctx, url, holdfast.Config{Owner: owner})
	if err != nil {
		return nil, err
	}
	m := hf.Mutex(lock)
	return &guard{
		do: func(ctx context.Context, f func(context.Context, int64) error) error {
			return m.Do(ctx, func(ctx context.Context, l *holdfast.Lease) error { return f(ctx, l.Fence()) })
		},
		close: hf.Close,
	}, nil
}
