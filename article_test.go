package holdfast_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/fence"
	"github.com/holdfast-go/holdfast/memlock"
)

// The code of docs/article.md: TestPagesShowCompiledCode finds it here. It runs on locks in memory.

var errInsufficientFunds = errors.New("insufficient funds")

func articleClient(t *testing.T) (context.Context, *holdfast.Client) {
	t.Helper()
	hf, err := holdfast.New(memlock.New(memlock.Config{}), holdfast.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hf.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx, hf
}

func TestArticleLock(t *testing.T) {
	ctx, hf := articleClient(t)
	balance, amount := 100, 30
	withdraw := func() error {
		return hf.Mutex("account:7").Do(ctx, func(ctx context.Context, l *holdfast.Lease) error {
			if amount > balance {
				return errInsufficientFunds
			}
			balance -= amount
			return nil
		})
	}
	for range 3 {
		if err := withdraw(); err != nil {
			t.Fatal(err)
		}
	}
	if err := withdraw(); !errors.Is(err, errInsufficientFunds) || balance != 10 {
		t.Errorf("%v, %d left", err, balance)
	}
}

func TestArticleDoubleCheckedLocking(t *testing.T) {
	ctx, hf := articleClient(t)
	cache := hf.Item("rates-content")
	fetches := 0
	fetch := func(context.Context) ([]byte, error) { fetches++; return []byte("1.17"), nil }
	rates := holdfast.NewOnce(hf, "rates",
		func(ctx context.Context) ([]byte, bool, error) { // is it there?
			v, err := cache.Get(ctx)
			return v.Data, v.Version != 0, err
		},
		func(ctx context.Context, l *holdfast.Lease) ([]byte, error) { // one makes it, the others wait
			data, err := fetch(ctx)
			if err != nil {
				return nil, err
			}
			_, err = cache.Set(ctx, data, time.Hour)
			return data, err
		})
	for range 2 {
		if data, err := rates.Get(ctx); err != nil || string(data) != "1.17" || fetches != 1 {
			t.Errorf("%q, %v, fetched %d times", data, err, fetches)
		}
	}
}

func TestArticleMonitor(t *testing.T) {
	ctx, hf := articleClient(t)
	mutex := hf.Mutex("orders")
	arrived := mutex.Cond("order-arrived")
	orders := hf.Item("orders-content")
	put := make(chan error, 1)
	go func() {
		put <- mutex.Do(ctx, func(ctx context.Context, _ *holdfast.Lease) error {
			if _, err := orders.Set(ctx, []byte("one"), 0); err != nil {
				return err
			}
			return arrived.Signal(ctx)
		})
	}()
	take := func() (holdfast.ItemValue, error) {
		l, err := mutex.Lock(ctx)
		if err != nil {
			return holdfast.ItemValue{}, err
		}
		defer func() { l.Unlock() }()
		for {
			order, err := orders.Get(ctx)
			if err != nil || order.Version != 0 {
				return order, err
			}
			if l, err = arrived.Wait(ctx, l); err != nil { // gives the lock back, sleeps, locks again
				return holdfast.ItemValue{}, err
			}
		}
	}
	if order, err := take(); err != nil || string(order.Data) != "one" {
		t.Errorf("%q, %v", order.Data, err)
	}
	if err := <-put; err != nil {
		t.Error(err)
	}
}

func TestArticleReadersAndWriters(t *testing.T) {
	ctx, hf := articleClient(t)
	stale := func(context.Context) bool { return true }
	refreshed := 0
	refresh := func(context.Context) error { refreshed++; return nil }
	look := func() error {
		l, err := hf.RWMutex("price-list").LockUpgradeable(ctx) // beside other readers
		if err != nil {
			return err
		}
		defer l.Unlock()
		if !stale(l.Context()) {
			return nil
		}
		if err := l.Upgrade(ctx); err != nil { // waits for the readers, alone from then on
			return err
		}
		return refresh(l.Context())
	}
	if err := look(); err != nil || refreshed != 1 {
		t.Errorf("%v, refreshed %d times", err, refreshed)
	}
}

func TestArticleSemaphore(t *testing.T) {
	ctx, hf := articleClient(t)
	wrote := 0
	write := func(context.Context) error { wrote++; return nil }
	enter := func() error {
		l, err := hf.Semaphore("cache-writers", 3).Acquire(ctx, 1) // three at once, in the whole cluster
		if err != nil {
			return err
		}
		defer l.Unlock()
		return write(l.Context())
	}
	for range 4 {
		if err := enter(); err != nil {
			t.Fatal(err)
		}
	}
	if wrote != 4 {
		t.Errorf("%d writes", wrote)
	}
}

func TestArticleIncrement(t *testing.T) {
	ctx, hf := articleClient(t)
	highest := func(context.Context) (int64, error) { return 41, nil } // SELECT coalesce(max(number), 0) FROM invoices
	numbers := hf.Sequence("invoices", holdfast.WithSource(highest))
	number, err := numbers.Next(ctx)
	if err != nil || number <= 41 {
		t.Errorf("%d, %v", number, err)
	}
}

func TestArticleAcquire(t *testing.T) {
	ctx, hf := articleClient(t)
	report := func(context.Context) error { return nil }
	var holder string
	run := func() error {
		l, err := hf.Mutex("nightly-report", holdfast.WithTTL(30*time.Second)).TryLock(ctx)
		if refused := new(holdfast.Error); errors.As(err, &refused) && errors.Is(err, holdfast.ErrHeld) {
			holder = refused.Holder.Owner
			return nil
		}
		if err != nil {
			return err
		}
		defer l.Unlock()           // only if it is still ours
		return report(l.Context()) // renewed meanwhile; the context ends when the lock is lost
	}
	other, err := hf.Mutex("nightly-report").Lock(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := run(); err != nil || holder == "" {
		t.Errorf("%v, held by %q", err, holder)
	}
	if err := errors.Join(other.Unlock(), run()); err != nil {
		t.Error(err)
	}
}

func TestArticleRedLock(t *testing.T) {
	ctx, hf := articleClient(t)
	work := func(context.Context) error { return nil }
	run := func() error {
		waiting, cancel := context.WithTimeout(ctx, 15*time.Second) // how long to wait
		defer cancel()
		l, err := hf.Mutex("distributed-lock-key", holdfast.WithTTL(45*time.Second)).Lock(waiting)
		if err != nil {
			return err // and nothing is held
		}
		defer l.Unlock()
		return work(l.Context())
	}
	if err := run(); err != nil {
		t.Error(err)
	}
}

// issueGapless is the task, done right. It needs a database: examples/invoices runs the same on
// several.
func issueGapless(ctx context.Context, hf *holdfast.Client, db *sql.DB, guard *fence.SQL) (number int64, err error) {
	err = hf.Mutex("invoices").Do(ctx, func(ctx context.Context, l *holdfast.Lease) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if err := guard.Open(ctx, tx, l); err != nil { // before the first read
			return err
		}
		if err := tx.QueryRowContext(ctx, "SELECT last FROM ledger").Scan(&number); err != nil {
			return err
		}
		number++
		if _, err := tx.ExecContext(ctx, "UPDATE ledger SET last = $1", number); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO invoices (number) VALUES ($1)", number); err != nil {
			return err
		}
		return tx.Commit()
	})
	return number, err
}

var _ = issueGapless

func TestArticleScripts(t *testing.T) {
	ctx, hf := articleClient(t)
	requests, err := hf.Counter("requests", 5*time.Second).Add(ctx, 1)
	if err != nil || requests.Total != 1 {
		t.Errorf("%+v, %v", requests, err)
	}
	decision, err := hf.Limiter("requests", holdfast.SlidingWindow(1000, 5*time.Second)).Allow(ctx, 1)
	if err != nil || !decision.Allowed {
		t.Errorf("%+v, %v", decision, err)
	}
}

// issueIfUnchanged is a try of the task without a lock.
func issueIfUnchanged(ctx context.Context, tx *sql.Tx) (number int64, done bool, err error) {
	var last, version int64
	if err := tx.QueryRowContext(ctx, "SELECT last, version FROM ledger").Scan(&last, &version); err != nil {
		return 0, false, err
	}
	result, err := tx.ExecContext(ctx, "UPDATE ledger SET last = $1, version = version + 1 WHERE version = $2", last+1, version)
	if err != nil {
		return 0, false, err
	}
	changed, err := result.RowsAffected() // 0: somebody was faster; once more, from the beginning
	return last + 1, changed == 1, err
}

var _ = issueIfUnchanged

func TestArticleItem(t *testing.T) {
	ctx, hf := articleClient(t)
	customer := hf.Item("customer:7")
	if _, err := customer.Set(ctx, []byte("a"), 0); err != nil {
		t.Fatal(err)
	}
	change := func(data []byte) []byte { return append(data, 'b') }
	locked := func() error {
		item, err := customer.GetAndLock(ctx) // nobody else's GetAndLock returns until it is unlocked
		if err != nil {
			return err
		}
		defer item.Unlock()
		return item.Update(ctx, change(item.Data), 0)
	}
	versioned := func() error {
		v, err := customer.Get(ctx)
		if err != nil {
			return err
		}
		_, err = customer.CompareAndSet(ctx, v.Version, change(v.Data), 0) // fails if somebody else has written since
		return err
	}
	if err := errors.Join(locked(), versioned()); err != nil {
		t.Fatal(err)
	}
	if v, err := customer.Get(ctx); err != nil || string(v.Data) != "abb" {
		t.Errorf("%q, %v", v.Data, err)
	}
}

func TestArticleAssignment(t *testing.T) {
	ctx, hf := articleClient(t)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan int, 12)
	serve := func(_ context.Context, p *holdfast.Partition) error {
		served <- p.Number
		<-p.Draining()
		return nil
	}
	run := func() error {
		workers := hf.Assignment("invoice-archive", holdfast.AssignmentConfig{Partitions: 12})
		return workers.Run(ctx, func(ctx context.Context, p *holdfast.Partition) error {
			return serve(ctx, p) // p.Number is its alone, until p.Draining() tells to stop
		})
	}
	ended := make(chan error, 1)
	go func() { ended <- run() }()
	seen := map[int]bool{}
	for len(seen) < 12 {
		select {
		case number := <-served:
			seen[number] = true
		case err := <-ended:
			t.Fatalf("ended with %v after %v", err, seen)
		}
	}
	cancel()
	<-ended
}
