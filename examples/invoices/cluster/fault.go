package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// fault breaks something of a row while it is under load, and says what. It calls struck at the
// moment from which on that is missing.
type fault func(ctx context.Context, r *run, struck func()) (what string, err error)

// breakEngine is the failover of the engine.
func breakEngine(_ context.Context, r *run, struck func()) (what string, err error) {
	err = r.lab.Do(func() { what = r.backend.breakIt(struck) })
	return what, err
}

// patience is for how long a holder is held up at most until another one comes.
const patience = 15 * time.Second

// breakEngineAtWork is the failover of the engine at the moment that is worst: a holder of the lock has
// read the last number, and is held up until somebody else was granted the lock as well, where the engine
// does that.
func breakEngineAtWork(ctx context.Context, r *run, struck func()) (what string, err error) {
	err = r.database.holdUp(beforeWriting, func(holder int, tx pgx.Tx) error {
		if what, err = breakEngine(ctx, r, struck); err != nil {
			return err
		}
		for began := time.Now(); time.Since(began) < patience; {
			waiting, err := waiters(ctx, tx)
			delete(waiting, holder)
			if len(waiting) > 0 || err != nil {
				return err
			}
			if err := pause(ctx, 5*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	})
	return what + ", while a holder was at work", err
}

// killInstance kills one of the service's processes, and starts it again.
func killInstance(ctx context.Context, r *run, struck func()) (string, error) {
	i := r.instances[0]
	i.serves("")
	struck()
	if err := r.lab.Do(i.program.Kill); err != nil {
		return "", err
	}
	if err := r.lab.Do(i.program.Start); err != nil {
		return "", err
	}
	return "an instance killed and started again", i.await(ctx)
}

// overtaken is how many invoices the others issue while a holder is frozen, where there are as many.
const overtaken = 10

// freezeHolder freezes an instance that holds the lock and was about to read the last number, until its
// lease has ended and others have issued invoices. Then it goes on, with the number it has read.
func freezeHolder(ctx context.Context, r *run, struck func()) (string, error) {
	frozen := -1
	err := r.database.holdUp(beforeReading, func(instance int, _ pgx.Tx) error {
		frozen = instance
		struck()
		return r.lab.Do(r.instances[instance].program.Pause)
	})
	if err != nil {
		return "", err
	}
	began, enough := time.Now(), min(r.load.issued()+overtaken, r.invoices-len(r.load.instances)*r.clients)
	for r.load.issued() < enough && err == nil {
		err = pause(ctx, 5*time.Millisecond)
	}
	for time.Since(began) < overlong && err == nil {
		err = pause(ctx, 5*time.Millisecond)
	}
	if e := r.lab.Do(r.instances[frozen].program.Resume); err == nil {
		err = e
	}
	return fmt.Sprintf("the holder's process stood still for %v, between its reading and its writing", time.Since(began).Round(100*time.Millisecond)), err
}

// overlong is longer than a lease lasts.
const overlong = 2500 * time.Millisecond
