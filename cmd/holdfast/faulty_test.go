package main

import (
	"context"
	"errors"
	"net/url"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

// The engine faulty://OP fails at one operation, as if its server had gone away.
func init() {
	driver.Register(driver.Scheme{Name: "faulty", Example: "faulty://renew", Open: openFaulty})
}

func openFaulty(_ context.Context, u *url.URL) (driver.Engine, error) {
	store := memlock.NewStore(memlock.Config{})
	store.Inject(func(c memlock.Call) memlock.Fault {
		switch op := memlock.Op(u.Host); {
		case c.Op != op:
			return memlock.Fault{}
		case op == memlock.OpAcquire:
			return memlock.Fault{Delay: time.Hour}
		}
		return memlock.Fault{Refuse: errors.New("no answer for " + u.User.String())}
	})
	return struct{ driver.Engine }{store.Engine()}, nil // without the ability to inspect
}
