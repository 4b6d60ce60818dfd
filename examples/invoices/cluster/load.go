package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/examples/invoices/internal/store"
)

// load is clients that want invoices. Each invoice has a key, with which a client asks for it until it is
// told the number: from the next instance whenever one does not answer, as behind a balancer. So
// answers that are lost neither lose an invoice nor make a second one.
type load struct {
	instances []*instance
	invoices  int
	client    *http.Client
	began     time.Time
	third     chan struct{} // closed when a third of the invoices is there
	broken    chan struct{} // closed when the last third may be asked for

	asked atomic.Int64

	mu      sync.Mutex
	answers []answered
	numbers map[string]int64 // by key, as clients were told
}

// answered is a request that has ended.
type answered struct {
	at     time.Duration // since the first request
	took   time.Duration
	issued bool
}

func newLoad(instances []*instance, invoices int) *load {
	return &load{
		instances: instances, invoices: invoices, third: make(chan struct{}), broken: make(chan struct{}), numbers: map[string]int64{},
		client: &http.Client{Timeout: clientTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: maxClients}},
	}
}

// run has each instance asked by so many clients at a time, and returns when all invoices are issued.
func (l *load) run(ctx context.Context, clients int) error {
	defer l.client.CloseIdleConnections()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l.began = time.Now()
	var all sync.WaitGroup
	for n := range clients * len(l.instances) {
		all.Go(func() {
			if err := l.one(ctx, n); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// one is a client: it begins at the instance with that number.
func (l *load) one(ctx context.Context, at int) error {
	const shortest, longest = 10 * time.Millisecond, 250 * time.Millisecond
	for {
		n := l.asked.Add(1)
		if n > int64(l.invoices) {
			return nil
		}
		if n > int64(l.invoices-l.invoices/3) {
			if err := l.holdBack(ctx); err != nil {
				return err
			}
		}
		key := fmt.Sprintf("invoice-%d", n)
		for wait := shortest; ; wait = min(2*wait, longest) {
			url := l.instances[at%len(l.instances)].address()
			if url == "" { // a balancer knows that it is down
				at++
			} else {
				began := time.Now()
				number, err := l.post(ctx, url, key)
				l.note(key, number, err, began)
				if err == nil {
					break
				}
				if errors.Is(err, errRefused) {
					return err
				}
				at++
			}
			if err := pause(ctx, wait/2+rand.N(wait)); err != nil {
				return err
			}
		}
	}
}

// holdBack leaves some invoices for after the failover, however fast the others were. A few are asked for
// in any case: who breaks something may need somebody at work.
func (l *load) holdBack(ctx context.Context) error {
	select {
	case <-l.broken:
	case <-time.After(250 * time.Millisecond):
	case <-ctx.Done():
	}
	return ctx.Err()
}

// errRefused is an answer that will not become another one.
var errRefused = errors.New("refused")

func (l *load) post(ctx context.Context, url, key string) (number int64, err error) {
	body := bytes.NewReader([]byte(`{"customer": "somebody", "cents": 4200}`))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/invoices", body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Idempotency-Key", key)
	resp, err := l.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil:
		return 0, err
	case resp.StatusCode >= 400 && resp.StatusCode < 500:
		return 0, fmt.Errorf("%w: %s: %s", errRefused, resp.Status, text)
	case resp.StatusCode >= 300:
		return 0, errors.New(resp.Status)
	}
	var i store.Invoice
	if err := json.Unmarshal(text, &i); err != nil {
		return 0, err
	}
	return i.Number, nil
}

// note keeps what became of a request.
func (l *load) note(key string, number int64, err error, began time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now() // in the order of answers
	l.answers = append(l.answers, answered{now.Sub(l.began), now.Sub(began), err == nil})
	if err != nil {
		return
	}
	l.numbers[key] = number
	if len(l.numbers) == (l.invoices+2)/3 {
		close(l.third)
	}
}

// issued returns how many invoices clients were told of by now.
func (l *load) issued() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.numbers)
}
