package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/internal/testserver"

	"github.com/holdfast-go/holdfast/examples/invoices/internal/service"
	"github.com/holdfast-go/holdfast/examples/invoices/internal/strategy"
)

// Times of an instance. A request may have to wait for a failover, and a client for the request.
const (
	startTimeout   = 60 * time.Second
	requestTimeout = 10 * time.Second
	clientTimeout  = requestTimeout + 2*time.Second
)

// instance is a process of the service.
type instance struct {
	number  int
	program *testserver.Program

	mu  sync.Mutex
	url string // "" while it is down
}

// startInstance starts one, and does not wait for it. Within Lab.Do.
func startInstance(l *testserver.Lab, number int, s scenario, db *database, b *backend) *instance {
	program, err := os.Executable()
	if err != nil {
		l.Fatal(err)
	}
	env := []string{
		"INVOICES_LISTEN=127.0.0.1:0",
		"INVOICES_DATABASE=" + db.url,
		"INVOICES_STRATEGY=" + s.strategy,
		"INVOICES_INSTANCE=" + fmt.Sprint(number),
		"INVOICES_REQUEST_TIMEOUT=" + requestTimeout.String(),
		"INVOICES_LOG_LEVEL=debug",
		"HOLDFAST_URL=",
	}
	if b.url != "" {
		env = append(env, "HOLDFAST_URL="+b.url+s.settings)
	}
	return &instance{number: number, program: testserver.Run(l, program, []string{serve}, env)}
}

// line is what the cluster reads in the log of an instance.
type line struct {
	Message string `json:"msg"`
	Address string
	From    time.Time
	To      time.Time
	Fence   uint64
}

// await returns when the instance listens.
func (i *instance) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		text, last := i.program.Output()
		for l := range lines(text[last:]) {
			if l.Message == service.ListeningMessage {
				i.serves("http://" + l.Address)
				return nil
			}
		}
		if !i.program.Running() {
			return fmt.Errorf("instance %d has ended: %s", i.number, text[last:])
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("instance %d does not listen: %w: %s", i.number, err, text[last:])
		}
	}
}

// lines yields those of a log that can be read. The last one may not be complete.
func lines(text []byte) func(func(line) bool) {
	return func(yield func(line) bool) {
		for raw := range bytes.Lines(text) {
			var l line
			if json.Unmarshal(raw, &l) == nil && !yield(l) {
				return
			}
		}
	}
}

// held returns the times in which the instance held the lock.
func (i *instance) held() (all []line) {
	text, _ := i.program.Output()
	for l := range lines(text) {
		if l.Message == strategy.HeldMessage {
			all = append(all, l)
		}
	}
	return all
}

func (i *instance) serves(url string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.url = url
}

// address returns the URL of the instance, "" while it is down.
func (i *instance) address() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.url
}
