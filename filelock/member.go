package filelock

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/holdfast-go/holdfast/driver"
)

// A member is one engine on the folder. Its file members/<id> is locked for as long as it
// lives; the kernel takes the lock away when the process ends. So whoever gets a lock on the
// file of another member, or does not find the file, knows that this member is dead. Ids are
// random and never used again: who is dead stays dead.

const memberIDSize = 16

type memberID [memberIDSize]byte

func (id memberID) fileName() string { return memberFile(string(id[:])) }

// memberFile returns the file of the member that shares name as their Home.
func memberFile(home string) string { return lowerBase32.EncodeToString([]byte(home)) }

const inboxSuffix = ".inbox"

type member struct {
	id     memberID
	home   string // id as the ledger has it
	folder string
	path   string
	mode   fs.FileMode
	file   *os.File

	mu    sync.Mutex
	inbox *inbox // made by the first wait
	gone  bool
}

// join makes the engine a new member.
func (e *Engine) join() (*member, error) {
	if err := e.prepare(); err != nil {
		return nil, err
	}
	for {
		m := &member{folder: e.path("members"), mode: e.books.mode}
		rand.Read(m.id[:]) // never fails, as it says
		m.home = string(m.id[:])
		m.path = filepath.Join(m.folder, m.id.fileName())
		ok, err := m.create()
		if err != nil {
			return nil, unavailable("making the file of a member", m.path, err)
		}
		if ok {
			return m, nil
		}
	}
}

// create makes the file and locks it. Another member that looks at the file between the two
// takes it for that of a dead one and removes it. It is then no longer what the path names,
// and nobody knows its id yet: create reports that it has to be tried again.
func (m *member) create() (bool, error) {
	file, err := os.OpenFile(m.path, openFlags|os.O_CREATE|os.O_EXCL, fileMode(m.mode))
	if err != nil {
		return false, err
	}
	ok, err := tryLock(file, true)
	if ok && err == nil && m.mode != 0 {
		err = file.Chmod(fileMode(m.mode))
	}
	if ok && err == nil {
		var id identity
		if id, err = identify(file); err == nil {
			ok, err = names(m.path, file, id)
		}
	}
	if !ok || err != nil {
		_ = os.Remove(m.path)
		_ = file.Close()
		return false, err
	}
	m.file = file
	return true, nil
}

// current returns the member that the engine is. Where somebody deleted its file, everybody
// takes it for dead: what it held is lost, and the engine goes on as another member.
func (e *Engine) current() (*member, error) {
	if m := e.member.Load(); linked(m.file) {
		return m, nil
	}
	e.joining.Lock()
	defer e.joining.Unlock()
	old := e.member.Load()
	if linked(old.file) {
		return old, nil
	}
	m, err := e.join()
	if err != nil {
		return nil, err
	}
	e.member.Store(m)
	e.former = append(e.former, old) // other calls may still look at it
	return m, nil
}

// leave ends the membership. Everything that the member holds is free from here on.
func (m *member) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone {
		return
	}
	m.gone = true
	if m.inbox != nil {
		m.inbox.close()
	}
	m.bury(m.home, m.file)
}

// listen opens the inbox. Without one, a waiter finds out by looking.
func (m *member) listen(deliver func(driver.Token)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.inbox == nil && !m.gone {
		m.inbox = openInbox(m.path+inboxSuffix, fileMode(m.mode), m.mode != 0, deliver)
	}
}

// alive reports whether the member home lives, and removes the files of a dead one. Whenever
// that cannot be found out, it lives: a lock that is stuck can be broken, one that is held
// twice cannot be undone.
//
// The lock is asked for on a descriptor of its own and therefore conflicts with that of the
// member even within one process.
func (m *member) alive(home string) bool {
	if home == m.home {
		return true
	}
	file, err := openFile(filepath.Join(m.folder, memberFile(home)), false, 0)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	if ok, err := tryLock(file, false); !ok || err != nil {
		_ = file.Close()
		return true
	}
	m.bury(home, file)
	return false
}

// census remembers which members live, so that each is looked for once. Its zero value is
// empty.
type census map[string]bool

func (c *census) alive(m *member, home string) bool {
	if home == m.home {
		return true
	}
	alive, known := (*c)[home]
	if !known {
		if *c == nil {
			*c = make(census)
		}
		alive = m.alive(home)
		(*c)[home] = alive
	}
	return alive
}

// bury removes the files of a member while file, its own, is locked by the caller: a member
// that is about to be created under this id cannot lock it before it is gone, and then sees
// that it is. Windows removes files only once they are closed, and never one that another
// process has open.
func (m *member) bury(home string, file *os.File) {
	m.remove(home)
	_ = file.Close()
	if runtime.GOOS == "windows" {
		m.remove(home)
	}
}

func (m *member) remove(home string) {
	path := filepath.Join(m.folder, memberFile(home))
	_ = os.Remove(path + inboxSuffix)
	_ = os.Remove(path)
}

// sweep removes the files of members that are dead, which nobody else may ever look for.
func (m *member) sweep() {
	dir, err := os.Open(m.folder)
	if err != nil {
		return
	}
	defer dir.Close()
	files, _ := dir.Readdirnames(-1)
	for _, file := range files {
		id, err := lowerBase32.DecodeString(strings.TrimSuffix(file, inboxSuffix))
		if err == nil && len(id) == memberIDSize && !m.alive(string(id)) {
			m.remove(string(id)) // an inbox without a member is not removed by alive
		}
	}
}
