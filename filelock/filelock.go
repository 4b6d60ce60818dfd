// Package filelock is the engine between the processes of one machine: no server, only a
// folder on a local disk.
//
// The locks of the kernel (flock, on Windows LockFileEx) say who is alive, and the ledger of
// a name, a small file that is changed under such a lock, says who holds it and who waits.
// A process that ends, however it ends, frees what it held at once. A process that is frozen
// keeps it: its kernel lock stands, and there is no lease that could run out. Fences are kept
// in the file, survive restarts of all processes, and those that were given out before a
// power failure are never given out again.
//
// Several engines on one folder exclude each other whether they are in one process or not.
//
// # What it does not do
//
// It does not reach beyond one kernel: network file systems are refused where they can be
// recognised, and where they cannot (FUSE), nothing is promised. Whoever may write to the
// folder is trusted. Deleting files of the folder while it is in use is noticed by the
// renewals of the holders, but not before. A process that is frozen within the few
// microseconds of a change keeps everybody from changing that name until it goes on or ends.
// The file of a name stays behind, because the fences are in it.
package filelock

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// Config configures an engine. The zero value is ready for use.
type Config struct {
	// Mode is given to folders that the engine makes, and without the execute bits to its
	// files, whatever the umask. Optional; the default is 0o700, one user, or what the folder
	// has if its group may write to it. All users of a folder need to read and write every
	// file in it; give its group access with 0o770.
	Mode fs.FileMode

	_ struct{}
}

// The TTLs of this engine. No share ends by its TTL; they only time the renewals, which here
// check that the share is still there.
const (
	MinTTL     = 10 * time.Millisecond
	MaxTTL     = 24 * time.Hour
	DefaultTTL = 10 * time.Second
)

// hasInbox says whether others can wake a waiter; otherwise it looks again by itself.
const hasInbox = runtime.GOOS != "windows"

var capabilities = driver.Capabilities{
	Engine: "filelock", Scope: driver.Machine,
	Shared: true, Upgradeable: true, Permits: true,
	Expires: false, FIFO: true, Push: hasInbox, Holders: true,
	MinTTL: MinTTL, MaxTTL: MaxTTL, DefaultTTL: DefaultTTL, Resolution: time.Nanosecond,
	MaxPermits:  MaxPermits,
	Safety:      "exclusive among the processes of one machine; ends when the holder's process does, a frozen holder keeps it",
	FenceSource: "counter in the name's file and wall clock; survives restarts and power failures, deleting the file leaves only the clock",
}

// Engine is one member of a folder, as one process is. It is safe for concurrent use.
type Engine struct {
	folder string
	boot   string
	clock  driver.Clock
	books  books
	inbox  waiters
	values values

	member  atomic.Pointer[member]
	joining sync.Mutex // orders replacements of member
	former  []*member  // what it was before its file was deleted; guarded by joining

	closing chan struct{}  // closed by Close
	mu      sync.Mutex     // orders calls.Add and Close
	calls   sync.WaitGroup // calls under way
}

var _ interface {
	driver.Engine
	driver.Inspector
	driver.Values
} = (*Engine)(nil)

// Open returns an engine on folder, which is made if it is missing. The folder must be on a
// local disk and belong to the locks alone.
//
// The engine holds one descriptor, one more once it has waited, and keeps some files of
// recently used names open. It does not lock anything by itself.
func Open(folder string, cfg Config) (*Engine, error) {
	if folder == "" {
		return nil, driver.Failf(driver.Invalid, "folder is empty: name one, for example the one that DefaultFolder returns")
	}
	if cfg.Mode&^fs.ModePerm != 0 || cfg.Mode != 0 && cfg.Mode&0o700 != 0o700 {
		return nil, driver.Failf(driver.Invalid, "Mode is %#o: give permission bits only, among them 0o700", cfg.Mode)
	}
	folder, err := filepath.Abs(folder)
	if err != nil {
		return nil, unavailable("finding", folder, err)
	}
	e := &Engine{folder: folder, boot: bootID(), clock: driver.BootClock(), closing: make(chan struct{})}
	if info, err := os.Stat(folder); err == nil && cfg.Mode == 0 && hasGroups && info.Mode()&0o070 == 0o070 {
		cfg.Mode = info.Mode() & 0o770 // it is shared already
	}
	e.books = books{mode: cfg.Mode, folder: e.path("names"), open: make(map[string]*book)}
	e.inbox.wake = make(map[driver.Token]chan struct{})
	e.values.turn = make(chan struct{}, 1)
	m, err := e.join()
	if err != nil {
		return nil, err
	}
	e.member.Store(m)
	m.sweep()
	return e, nil
}

func (e *Engine) path(name string) string { return filepath.Join(e.folder, name) }

// prepare makes the folders, if they are missing, and looks whether they are of any use.
func (e *Engine) prepare() error {
	if err := makeFolder(e.folder, "", e.books.mode); err != nil {
		return err
	}
	for _, name := range [...]string{"names", "members"} {
		if err := makeFolder(e.path(name), e.folder, e.books.mode); err != nil {
			return err
		}
	}
	switch network, err := networkFileSystem(e.folder); {
	case err != nil:
		return unavailable("looking at the file system of", e.folder, err)
	case network != "":
		return driver.Failf(driver.Unsupported,
			"folder %s is on %s: locks on network file systems do not hold; choose a folder on a local disk, or an engine with a server",
			e.folder, network)
	}
	return nil
}

// makeFolder makes a folder, with the group of the folder model where there is one. What is
// made in it later has its group too.
func makeFolder(path, model string, mode fs.FileMode) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return driver.Failf(driver.Invalid, "folder %s is a file: choose another folder", path)
	case !errors.Is(err, fs.ErrNotExist):
		return unavailable("looking at folder", path, err)
	}
	if err := os.MkdirAll(path, dirMode(mode)); err != nil {
		return unavailable("making folder", path, err)
	}
	if mode != 0 {
		shareGroup(path, model)
		if hasGroups && mode&0o070 != 0 {
			mode |= fs.ModeSetgid
		}
		if err := os.Chmod(path, mode); err != nil {
			return unavailable("setting the mode of folder", path, err)
		}
	}
	// The names' files are durable only if the way to them is.
	if err := syncDir(filepath.Dir(path)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return unavailable("syncing the folder above", path, err)
	}
	return nil
}

func dirMode(mode fs.FileMode) fs.FileMode {
	if mode == 0 {
		return 0o700
	}
	return mode
}

func fileMode(mode fs.FileMode) fs.FileMode { return dirMode(mode) & 0o666 }

// Capabilities implements driver.Engine.
func (e *Engine) Capabilities() driver.Capabilities {
	caps := capabilities
	caps.Clock, caps.Instance = e.clock, e.folder
	return caps
}

// Close implements driver.Engine. What was held through e is free at once, as it is when the
// process ends; those who wait in other processes find out within a tenth of a second.
func (e *Engine) Close() error {
	e.mu.Lock()
	select {
	case <-e.closing:
		e.mu.Unlock()
		return nil
	default:
	}
	close(e.closing)
	e.mu.Unlock()
	e.calls.Wait()
	e.books.close()
	e.values.close()
	for _, m := range append(e.former, e.member.Load()) {
		m.leave()
	}
	return nil
}

// enter begins a call, or reports why it must not begin. Every call that began ends with
// e.calls.Done.
func (e *Engine) enter(ctx context.Context) error {
	e.mu.Lock()
	select {
	case <-e.closing:
		e.mu.Unlock()
		return errClosed
	default:
	}
	e.calls.Add(1)
	e.mu.Unlock()
	if err := ctx.Err(); err != nil {
		e.calls.Done()
		return driver.Fail(driver.Unavailable, err)
	}
	return nil
}
