package main

import (
	"context"
	"time"

	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidislock"
)

// rueidislock renews by itself. By default a lock is three keys on the one server, and each
// renewal makes the server notify the client that sent it, which renews again. A try that
// takes longer than TryNextAfter, 20 ms by default, is undone, and without notices of its own
// changes the waiter then hears of nothing any more: hence a second for the tuned one.
var rueidislockAdapters = []adapter{
	{name: "rueidislock", kind: byDefault, about: "rueidislock, defaults", open: openRueidislock(rueidislock.LockerOption{})},
	{name: "rueidislock-tuned", kind: atBest, about: "rueidislock, one key a lock, no notice of own changes",
		open: openRueidislock(rueidislock.LockerOption{KeyMajority: 1, NoLoopTracking: true, TryNextAfter: time.Second})},
}

func openRueidislock(option rueidislock.LockerOption) func(string) (peer, error) {
	return func(addr string) (peer, error) {
		option.ClientOption = rueidis.ClientOption{InitAddress: []string{addr}}
		l, err := rueidislock.NewLocker(option)
		if err != nil {
			return nil, err
		}
		return rueidislockPeer{l}, nil
	}
}

type rueidislockPeer struct{ rueidislock.Locker }

func (p rueidislockPeer) locker(key string) locker { return &rueidislockLock{peer: p, key: key} }
func (p rueidislockPeer) close() error             { p.Close(); return nil }

type rueidislockLock struct {
	peer   rueidislockPeer
	key    string
	held   context.Context
	cancel context.CancelFunc
}

func (l *rueidislockLock) lock(ctx context.Context) (err error) {
	l.held, l.cancel, err = l.peer.WithContext(ctx, l.key)
	return err
}

func (l *rueidislockLock) unlock() error {
	lost := l.held.Err()
	l.cancel()
	return lost
}
