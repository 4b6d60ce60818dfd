package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// clientsPerInstance is how many requests an instance has to answer at a time.
	clientsPerInstance = 8

	// requestTimeout is far beyond the longest queue for the lock.
	requestTimeout = 60 * time.Second

	// maxErrors is when a strategy gives up: no verdict needs more of them.
	maxErrors = 100
)

// drive has every instance issue its invoices, and returns when all are issued or failed. No
// request is repeated: one that failed may have issued a number.
func drive(ctx context.Context, c *cluster, invoices int, t *tally) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var clients sync.WaitGroup
	for _, m := range c.members {
		var taken atomic.Int64
		client := &http.Client{
			Timeout:   requestTimeout,
			Transport: &http.Transport{MaxIdleConnsPerHost: clientsPerInstance}, // and no proxy
		}
		defer client.CloseIdleConnections() // an instance waits for them when it ends
		for range min(clientsPerInstance, invoices) {
			clients.Go(func() {
				for taken.Add(1) <= int64(invoices) && ctx.Err() == nil {
					inv, err := post(ctx, client, "http://"+m.address.String()+"/invoices")
					if err == nil {
						t.add(inv.Number)
					} else if t.fail(1, fmt.Errorf("instance %d: %w", m.number, err)) >= maxErrors {
						cancel()
					}
				}
			})
		}
	}
	clients.Wait()
}

func post(ctx context.Context, client *http.Client, url string) (inv invoice, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return inv, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return inv, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&inv); err != nil {
		return inv, fmt.Errorf("%s: %w", resp.Status, err)
	}
	if inv.Error != "" {
		return inv, errors.New(inv.Error)
	}
	if resp.StatusCode != http.StatusOK || inv.Number < 1 {
		return inv, fmt.Errorf("%s with the number %d", resp.Status, inv.Number)
	}
	return inv, nil
}

// tally counts what the clients were told.
type tally struct {
	expected int

	mu      sync.Mutex
	seen    map[int64]bool
	highest int64
	issued  int
	errors  int
	first   error // the one that began it
}

func newTally(expected int) *tally {
	return &tally{expected: expected, seen: make(map[int64]bool, expected)}
}

func (t *tally) add(number int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.issued++
	t.seen[number] = true
	t.highest = max(t.highest, number)
}

// fail counts n errors and returns how many there are by now. It remembers the first.
func (t *tally) fail(n int, err error) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.errors += n
	if t.first == nil {
		t.first = err
	}
	return t.errors
}

// counts is a tally at one moment.
type counts struct {
	Issued     int `json:"issued"`
	Duplicates int `json:"duplicates"` // numbers issued, less different numbers
	Gaps       int `json:"gaps"`       // numbers below the highest that nobody was given
	Errors     int `json:"errors"`     // requests without a number
}

func (t *tally) counts() counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return counts{
		Issued:     t.issued,
		Duplicates: t.issued - len(t.seen),
		Gaps:       int(t.highest) - len(t.seen),
		Errors:     t.errors,
	}
}
