package filelock

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// maxIdle bounds the files that are kept open while nobody uses them. Opening a file costs
// more than everything else that an uncontended lock does.
const maxIdle = 64

// book is the open file of a name. What it says can be read at any time; it is changed, and
// the fields below turn are used, by who has the turn and the guard.
type book struct {
	name, path string
	file       *os.File
	id         identity

	turn chan struct{} // holds a token while somebody of this process is in the section
	section

	// Guarded by books.mu:
	users int
	used  uint64 // when it was last used, in calls
	stale bool   // it is no longer the file of the name
}

// books are the files that are open.
type books struct {
	folder string
	mode   fs.FileMode

	mu    sync.Mutex
	open  map[string]*book
	calls uint64
}

// get returns the open file of a name, which done gives back. Without create, it answers
// errAbsent for a name that has none.
func (bs *books) get(name string, create bool) (*book, error) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	b := bs.open[name]
	if b == nil {
		// Opening a file under the mutex keeps others waiting for a few microseconds, and
		// the same file from being opened twice.
		var err error
		if b, err = bs.openBook(name, create); err != nil {
			return nil, err
		}
		bs.open[name] = b
	}
	b.users++
	bs.calls++
	b.used = bs.calls
	return b, nil
}

func (bs *books) openBook(name string, create bool) (*book, error) {
	path := filepath.Join(bs.folder, fileName(name))
	b, err := openBook(name, path, create, bs.mode)
	switch {
	case err == nil || err == errAbsent:
		return b, err
	case errors.Is(err, fs.ErrNotExist) && !create:
		return nil, errAbsent
	}
	return nil, unavailable("opening", path, err)
}

// makeFile makes a file that is missing. Others never see it without its mode, whatever the
// umask: they would take it for one that they may not use.
func makeFile(path string, mode fs.FileMode) error {
	if _, err := os.Lstat(path); !hasGroups || !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := file.Chmod(mode); err != nil {
		return err
	}
	_ = os.Link(file.Name(), path) // it is there by now, or the file system has neither links nor modes
	return nil
}

func openBook(name, path string, create bool, mode fs.FileMode) (*book, error) {
	if create && mode != 0 {
		if err := makeFile(path, fileMode(mode)); err != nil {
			return nil, err
		}
	}
	file, err := openFile(path, create, fileMode(mode))
	if err != nil {
		return nil, err
	}
	id, err := identify(file)
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &book{name: name, path: path, file: file, id: id, turn: make(chan struct{}, 1)}, nil
}

// done gives b back. A book that is stale, or one too many, is closed with its last user.
func (bs *books) done(b *book) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	if b.users--; b.users > 0 {
		return
	}
	if b.stale {
		_ = b.file.Close()
		return
	}
	if len(bs.open) > maxIdle {
		bs.evict()
	}
}

// evict closes the file that has not been used for the longest time, if any is idle.
func (bs *books) evict() {
	var oldest *book
	for _, b := range bs.open {
		if b.users == 0 && (oldest == nil || b.used < oldest.used) {
			oldest = b
		}
	}
	if oldest != nil {
		delete(bs.open, oldest.name)
		_ = oldest.file.Close()
	}
}

// discard marks b, which its caller uses, as no longer the file of its name.
func (bs *books) discard(b *book) {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	b.stale = true
	if bs.open[b.name] == b {
		delete(bs.open, b.name)
	}
}

// close closes all files. Nobody uses any by now.
func (bs *books) close() {
	bs.mu.Lock()
	defer bs.mu.Unlock()
	for name, b := range bs.open {
		_ = b.file.Close()
		delete(bs.open, name)
	}
}
