package filelock

import (
	"bytes"
	"context"
	"path/filepath"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/ledger"
)

const (
	CeilingLead = ceilingLead
	CeilingAt   = ceilingAt
	SlotSize    = slotSize
	MaxIdle     = maxIdle
	MaxShares   = maxShares
)

// SetBoot makes e believe that the machine was started under this boot id.
func (e *Engine) SetBoot(id string) { e.boot = id }

// PathOf returns the file of a name.
func (e *Engine) PathOf(name string) string {
	return filepath.Join(e.books.folder, fileName(name))
}

// MemberPath returns the file of the member that e is.
func (e *Engine) MemberPath() string { return e.member.Load().path }

// Waiting returns how many calls are entered as waiting in e.
func (e *Engine) Waiting() int {
	e.inbox.mu.Lock()
	defer e.inbox.mu.Unlock()
	return len(e.inbox.wake)
}

// OpenFiles returns how many files of names are open.
func (e *Engine) OpenFiles() int {
	e.books.mu.Lock()
	defer e.books.mu.Unlock()
	return len(e.books.open)
}

// HoldGuard stands for a process that is frozen in a section; the result lets it go on.
func (e *Engine) HoldGuard(name string) (func(), error) {
	path := e.PathOf(name)
	b, err := openBook(name, path, true, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		if ok, err := tryLock(b.file, true); ok || err != nil {
			return func() { b.file.Close() }, err
		}
	}
}

// ReadFile reads b as the file of a name and reports the name and how many shares it has.
func ReadFile(b []byte) (name string, shares int, err error) {
	var v viewer
	r := bytes.NewReader(b)
	if _, err := readRecords(r); err != nil {
		return "", 0, err
	}
	name, err = v.read(r, "fuzz")
	if err != nil {
		return "", 0, err
	}
	return name, len(v.st.Shares), nil
}

// ReadPayload decodes b as a state and, if it is one, encodes it again.
func ReadPayload(b []byte) (again []byte, err error) {
	var st state
	name, err := st.decode(b)
	if err != nil {
		return nil, err
	}
	return st.encode(nil, name), nil
}

// NewFile returns what a file of name holds after the first grant.
func NewFile(name string) []byte {
	var st state
	req := driver.Request{Name: name, Mode: driver.Exclusive, Weight: 1, Owner: "owner", TTL: 1, Span: 3}
	st.Ask(&req, string(make([]byte, memberIDSize)), &st.fences, nowMicros())
	var w grower
	var buf []byte
	if _, err := store(&w, &st, name, &buf); err != nil {
		panic(err)
	}
	return w.b
}

// Crowd makes name a lock with n readers, all of them of e.
func (e *Engine) Crowd(name string, n int) error {
	b, err := e.lock(context.Background(), e.closing, name, true)
	if err != nil {
		return err
	}
	defer e.unlock(b)
	b.touch()
	for i := range n {
		b.st.Shares = append(b.st.Shares, ledger.Share{
			Token: driver.Token{0: byte(i), 1: byte(i >> 8)}, Mode: driver.Shared, State: ledger.Held, Home: b.me.home, Fence: 1, FenceSpan: 1,
		})
	}
	return b.save()
}

type grower struct{ b []byte }

func (g *grower) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(g.b) {
		g.b = append(g.b, make([]byte, need-len(g.b))...)
	}
	return copy(g.b[off:], p), nil
}

var (
	FileName  = fileName
	FolderOf  = folderOf
	MayBelong = mayBelong
)
