package mysqllock

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestLimit: a statement is ended when its own time is over, whatever the time of those before it was, and
// no other is.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit{life: t.Context()}
		defer l.rest()
		alive := func(what string, ctx context.Context) {
			t.Helper()
			if synctest.Wait(); ctx.Err() != nil {
				t.Errorf("%s is ended: %v", what, ctx.Err())
			}
		}
		var ctx context.Context
		for range 3 {
			ctx, _ = l.begin(10 * time.Second)
			time.Sleep(9 * time.Second)
			alive("one that takes less than it may", ctx)
			if err := l.over(nil); err != nil {
				t.Errorf("it has ended with %v", err)
			}
		}
		time.Sleep(time.Minute)
		alive("one that is over for long", ctx)
		ctx, _ = l.begin(10 * time.Second)
		time.Sleep(time.Second)
		_ = l.over(nil)
		alive("one that is over", ctx)

		began := time.Now()
		ctx, _ = l.begin(2 * time.Second) // less than the one before
		<-ctx.Done()
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("a statement of 2 s is ended after %v", took)
		}
		if err := l.over(ctx.Err()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it has ended with %v", err)
		}
		if err := l.over(nil); err != nil {
			t.Errorf("one that was answered in that moment has ended with %v", err)
		}
		ctx, _ = l.begin(2 * time.Second)
		alive("the next", ctx)
		_ = l.over(nil)
	})
}

// TestLimitAbort: what aborts a statement hits neither what comes later, nor the one that was over before.
func TestLimitAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit{life: t.Context()}
		defer l.rest()
		first, abort := l.begin(time.Second)
		abort()
		<-first.Done()
		if err := l.over(first.Err()); errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, context.Canceled) {
			t.Errorf("what was aborted has ended with %v", err)
		}
		abort()
		second, _ := l.begin(time.Second)
		if second.Err() != nil {
			t.Error("the next statement is aborted as well")
		}
		_ = l.over(nil)
		abort()
		third, _ := l.begin(time.Second)
		if third != second || third.Err() != nil {
			t.Error("one that was over is aborted, and with it what the next has")
		}
		_ = l.over(nil)
		l.rest()
		if fourth, _ := l.begin(time.Second); fourth.Err() != nil {
			t.Error("the first statement of another connection is aborted")
		}
	})
}

// TestLimitLife: the end of the engine ends its statements.
func TestLimitLife(t *testing.T) {
	life, end := context.WithCancel(t.Context())
	l := limit{life: life}
	defer l.rest()
	ctx, _ := l.begin(leadPatience)
	end()
	leadSoon(t, "the statement is ended", ctx.Done())
}
