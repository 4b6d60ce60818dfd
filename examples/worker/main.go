// Command worker does work that only one process may do: the instances elect a leader, and what
// it writes is guarded by the fence of its term.
//
// Run it in two terminals:
//
//	go run ./worker
//
// One of them leads and counts up in a file; the other waits. Then try this:
//
//   - Ctrl-C: the leader resigns, and the other goes on with the next number at once.
//   - kill -9: the same, once the lock is free; at once on files, after the TTL on a server.
//   - on a server (-engine 'redis://127.0.0.1:6379?ttl=3s') kill -STOP the leader, wait until
//     the other one leads, kill -CONT it. It wakes up in the middle of its work and believes that it
//     leads; whatever it writes now is refused.
//
// The check is what makes it safe. A leader learns that its term is over from the context, but it
// may be paused between its last look there and its write. The fence of a later term is larger, and the
// file has been shown it before the later leader read anything: see the package fence, which has the
// same for databases, Redis and web services.
//
// Fences of one engine do not compare with those of another: give -file another one with it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/examples/internal/program"
	"github.com/holdfast-go/holdfast/fence"
)

func main() {
	file := flag.String("file", filepath.Join(program.Folder(), "worker.count"), "`path` of what the leader writes, on a local disk")
	takes := flag.Duration("takes", time.Second, "how long the work for one number takes")
	program.Main(func(ctx context.Context, hf *holdfast.Client) error {
		w, err := newWorker(hf, *file, func(ctx context.Context, _ int) error { return program.Sleep(ctx, *takes) })
		if err != nil {
			return err
		}
		return w.run(ctx)
	})
}

// worker is one candidate.
type worker struct {
	election *holdfast.Election
	path     string
	file     *fence.File
	work     func(ctx context.Context, n int) error
}

func newWorker(hf *holdfast.Client, path string, work func(context.Context, int) error) (*worker, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	file, err := fence.NewFile(path, fence.FileConfig{})
	return &worker{hf.Election("worker"), path, file, work}, err
}

// run leads whenever it is elected, until ctx ends or the work fails.
func (w *worker) run(ctx context.Context) error {
	for {
		err := w.election.Lead(ctx, fmt.Appendf(nil, "process %d", os.Getpid()), w.lead)
		if !errors.Is(err, holdfast.ErrStale) {
			return err
		}
		// Another one leads, and this one had not been told yet. It stands for election again.
		log.Printf("overtaken: %v", err)
		if err := program.Sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

// lead works until ctx ends, which it does with the term.
func (w *worker) lead(ctx context.Context, term *holdfast.Term) error {
	log.Printf("leading with fence %d", term.Fence())
	// Before the first read: from now on nobody of an earlier term can write.
	if err := w.file.Open(ctx, term.Lease()); err != nil {
		return err
	}
	n, err := w.read()
	for err == nil {
		n++
		if err = w.work(ctx, n); err == nil {
			err = w.file.Write(ctx, term.Lease(), fmt.Appendf(nil, "%d\n", n))
		}
		if err == nil {
			log.Printf("wrote %d", n)
		}
	}
	log.Printf("stopped before %d: %v", n, err)
	return err
}

// read returns the last number that was written, 0 where none was.
func (w *worker) read() (int, error) {
	data, err := os.ReadFile(w.path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}
