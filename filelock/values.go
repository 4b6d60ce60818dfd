package filelock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/ledger"
)

// A value is a file of its own in the folder "values", which is replaced as a whole: readers
// see the old one or the new one, and need no lock. Writers take their turn under one kernel
// lock, that of the guard. Every write is synced before it is answered: a total that was
// counted is not counted again after a power failure. They expire by the system's wall clock:
// when that is stepped, they live for so much longer or shorter. A value that has expired is nothing to
// readers; its file stays until the next write to the name.
//
// Nobody is told of changes: those who wait look again, soon at first.
const (
	valuesFolder = "values"
	valueMagic   = "holdfast value 1"
	firstLook    = time.Millisecond
	lastLook     = 50 * time.Millisecond
)

// values is an engine's access to the values of its folder.
type values struct {
	turn chan struct{} // has an element while a goroutine of this engine writes

	mu    sync.Mutex
	guard *os.File // nil before the first write
}

// ReadValue implements driver.Values.
func (e *Engine) ReadValue(ctx context.Context, name string) (driver.Value, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Value{}, err
	}
	defer e.calls.Done()
	return e.readValue(name)
}

// WriteValue implements driver.Values.
func (e *Engine) WriteValue(ctx context.Context, w driver.Write) (driver.Value, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Value{}, err
	}
	defer e.calls.Done()
	select {
	case e.values.turn <- struct{}{}:
		defer func() { <-e.values.turn }()
	case <-ctx.Done():
		return driver.Value{}, busy(ctx)
	}
	guard, err := e.lockValues(ctx)
	if err != nil {
		return driver.Value{}, err
	}
	defer unlock(guard)
	was, err := e.readValue(w.Name)
	switch {
	case err != nil:
		return driver.Value{}, err
	case w.If != driver.AnyVersion && w.If != was.Version:
		return was, driver.Failf(driver.Stale, "version is %d, not %d", was.Version, w.If)
	case w.Fence != 0 && w.Fence < was.Fence:
		return was, driver.Failf(driver.Stale, "fence %d has written already: yours is %d", was.Fence, w.Fence)
	case w.Delete:
		return e.removeValue(w.Name)
	}
	version, err := nextVersion(guard, was.Version)
	if err != nil {
		return driver.Value{}, unavailable("counting versions in", guard.Name(), err)
	}
	return e.storeValue(&w, version, max(was.Fence, w.Fence))
}

// AwaitValue implements driver.Values.
func (e *Engine) AwaitValue(ctx context.Context, name string, version int64) (driver.Value, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Value{}, err
	}
	defer e.calls.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for pause := firstLook; ; pause = min(pause*5/4, lastLook) {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return driver.Value{}, driver.Fail(driver.Unavailable, ctx.Err())
		case <-e.closing:
			return driver.Value{}, errClosed
		}
		v, err := e.readValue(name)
		if err != nil || v.Version != version {
			return v, err
		}
		timer.Reset(pause/2 + rand.N(pause))
	}
}

// lockValues takes the guard, for a moment in which this engine has the turn.
func (e *Engine) lockValues(ctx context.Context) (*os.File, error) {
	path := filepath.Join(e.path(valuesFolder), "guard")
	for {
		guard, err := e.openGuard(path)
		if err != nil {
			return nil, err
		}
		b := book{path: path, file: guard}
		if err := b.guard(ctx, e.closing); err != nil {
			return nil, err
		}
		id, err := identify(guard)
		same := false
		if err == nil {
			same, err = names(path, guard, id)
		}
		switch {
		case err != nil:
			unlock(guard)
			return nil, unavailable("looking at", path, err)
		case same:
			return guard, nil
		}
		unlock(guard) // somebody has deleted it: others lock the one that stands there now
		e.values.close()
	}
}

func (e *Engine) openGuard(path string) (*os.File, error) {
	e.values.mu.Lock()
	defer e.values.mu.Unlock()
	if e.values.guard != nil {
		return e.values.guard, nil
	}
	if err := makeFolder(filepath.Dir(path), e.folder, e.books.mode); err != nil {
		return nil, err
	}
	if e.books.mode != 0 {
		if err := makeFile(path, fileMode(e.books.mode)); err != nil {
			return nil, unavailable("making", path, err)
		}
	}
	guard, err := openFile(path, true, fileMode(e.books.mode))
	if err != nil {
		return nil, unavailable("opening", path, err)
	}
	e.values.guard = guard
	return guard, nil
}

func (v *values) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.guard != nil {
		_ = v.guard.Close()
		v.guard = nil
	}
}

// nextVersion returns a number above every earlier one, and writes it into the guard. After a
// power failure, when the guard may be older than the values, the clock and the value itself keep the order.
func nextVersion(guard *os.File, was int64) (int64, error) {
	text := make([]byte, 32)
	n, err := guard.ReadAt(text, 0)
	if err != nil && err != io.EOF {
		return 0, err
	}
	last, _ := strconv.ParseInt(strings.TrimSpace(string(text[:n])), 10, 64)
	fences := ledger.Fences{Last: max(last, was), Ahead: true}
	next, _ := fences.Next(1, nowMicros())
	_, err = guard.WriteAt(fmt.Appendf(nil, "%-31d\n", next), 0)
	return next, err
}

func (e *Engine) valuePath(name string) string {
	return filepath.Join(e.path(valuesFolder), fileName(name))
}

// readValue reads a file of the form "magic version fence until name-length", a newline, the
// name and the data; until is in µs since 1970, 0 for ever.
func (e *Engine) readValue(name string) (driver.Value, error) {
	v := driver.Value{Now: time.Now().Round(0)}
	path := e.valuePath(name)
	content, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return v, nil
	}
	if err != nil {
		return v, unavailable("reading", path, err)
	}
	head, rest, _ := bytes.Cut(content, []byte("\n"))
	var version, fence, until int64
	var length int
	fields := strings.TrimPrefix(string(head), valueMagic+" ")
	if _, err := fmt.Sscan(fields, &version, &fence, &until, &length); err != nil || length < 0 || length > len(rest) {
		return v, driver.Failf(driver.Unavailable, "file %s is no value, or is damaged: delete it; what it holds is lost", path)
	}
	if string(rest[:length]) != name {
		return v, foreign(path, string(rest[:length]))
	}
	left := time.UnixMicro(until).Sub(v.Now)
	if until != 0 && left <= 0 {
		return v, nil
	}
	v.Version, v.Fence, v.Data = version, fence, rest[length:]
	if until != 0 {
		v.TTL = left
	}
	return v, nil
}

func readFile(path string) ([]byte, error) {
	f, err := openFile(path, false, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := identify(f); err != nil {
		return nil, err
	}
	var content bytes.Buffer
	_, err = content.ReadFrom(f)
	return content.Bytes(), err
}

// storeValue replaces the file by a new one that is on the disk.
func (e *Engine) storeValue(w *driver.Write, version, fence int64) (driver.Value, error) {
	now := time.Now().Round(0)
	until := int64(0)
	if w.TTL > 0 {
		until = now.Add(w.TTL).UnixMicro() + 1
	}
	content := fmt.Appendf(nil, "%s %d %d %d %d\n%s", valueMagic, version, fence, until, len(w.Name), w.Name)
	content = append(content, w.Data...)
	path := e.valuePath(w.Name)
	if err := e.replace(path, content); err != nil {
		failed := unavailable("writing", path, err)
		failed.Outcome = driver.Unknown
		return driver.Value{}, failed
	}
	return driver.Value{Data: bytes.Clone(w.Data), Version: version, Fence: fence, TTL: w.TTL, Now: now}, nil
}

func (e *Engine) replace(path string, content []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) // it is gone by then, if all went well
	if e.books.mode != 0 {
		err = temp.Chmod(fileMode(e.books.mode))
	}
	if err == nil {
		_, err = temp.Write(content)
	}
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func (e *Engine) removeValue(name string) (driver.Value, error) {
	path := e.valuePath(name)
	err := os.Remove(path)
	switch {
	case err == nil:
		if err := syncDir(filepath.Dir(path)); err != nil {
			failed := unavailable("syncing the removal of", path, err)
			failed.Outcome = driver.Unknown
			return driver.Value{}, failed
		}
	case !errors.Is(err, fs.ErrNotExist):
		return driver.Value{}, unavailable("removing", path, err)
	}
	return driver.Value{Now: time.Now().Round(0)}, nil
}
