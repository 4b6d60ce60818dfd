package filelock

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/ledger"
)

// Inspect implements driver.Inspector. It changes nothing: what dead processes left in the
// file is not shown, and is removed by the next who wants the name.
func (e *Engine) Inspect(ctx context.Context, name string) (driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Info{}, err
	}
	defer e.calls.Done()
	info := driver.Info{Name: name}
	err := e.view(ctx, name, func(st *state) { info = e.describe(st, name) })
	if err == errAbsent {
		err = nil
	}
	return info, err
}

// describe describes what the living have in st.
func (e *Engine) describe(st *state, name string) driver.Info {
	m, c := e.member.Load(), census(nil)
	st.RemoveFunc(func(s *ledger.Share) bool { return !c.alive(m, s.Home) })
	return st.Info(name, until)
}

// List implements driver.Inspector. It reads the files of all names whose beginning could be
// prefix.
func (e *Engine) List(ctx context.Context, prefix string, limit int) ([]driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return nil, err
	}
	defer e.calls.Done()
	files, err := os.ReadDir(e.books.folder)
	if err != nil {
		return nil, unavailable("reading folder", e.books.folder, err)
	}
	var infos []driver.Info
	for _, file := range files {
		if !mayBelong(file.Name(), prefix) {
			continue
		}
		if ctx.Err() != nil {
			return nil, driver.Fail(driver.Unavailable, ctx.Err())
		}
		info, err := e.look(ctx, filepath.Join(e.books.folder, file.Name()))
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(info.Name, prefix) && len(info.Holders) > 0 {
			infos = append(infos, info)
		}
	}
	sort.Slice(infos, func(i, j int) bool { return infos[i].Name < infos[j].Name })
	return infos[:min(max(limit, 0), len(infos))], nil
}

// look describes the name that has this file.
func (e *Engine) look(ctx context.Context, path string) (driver.Info, error) {
	b, err := openBook("", path, false, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return driver.Info{}, nil
	}
	if err != nil {
		return driver.Info{}, unavailable("opening", path, err)
	}
	defer b.file.Close()
	v := viewers.Get().(*viewer)
	defer viewers.Put(v)
	name, err := v.read(b.file, path)
	if err == errMoving {
		name, err = e.lookGuarded(ctx, b, v)
	}
	if err != nil {
		return driver.Info{}, err
	}
	return e.describe(&v.st, name), nil
}

// lookGuarded reads a file that changes too fast to be read without the guard, or that has
// been damaged.
func (e *Engine) lookGuarded(ctx context.Context, b *book, v *viewer) (name string, err error) {
	if err := b.guard(ctx, e.closing); err != nil {
		return "", err
	}
	defer unlock(b.file)
	b.e, b.me = e, e.member.Load()
	snap, err := readSlots(b.file, v.page[:])
	if err == nil {
		name, _, err = snap.load(b.file, &v.st)
	}
	switch {
	case errors.Is(err, errTorn) && b.afterCrash():
		return "", nil // nobody holds it
	case err != nil:
		return "", explain(b.path, err)
	}
	return name, nil
}

// Break implements driver.Inspector. It adds one line of JSON to breaks.log in the folder.
func (e *Engine) Break(ctx context.Context, req driver.BreakRequest) (driver.Info, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Info{}, err
	}
	defer e.calls.Done()
	info := driver.Info{Name: req.Name}
	b, err := e.lock(ctx, e.closing, req.Name, false)
	if err == errAbsent {
		return info, driver.Fail(driver.NotHeld, nil)
	}
	if err != nil {
		return info, err
	}
	defer e.unlock(b)
	if b.strike() {
		b.settle()
		if err := b.save(); err != nil {
			return info, err
		}
	}
	info = b.st.Info(req.Name, until)
	switch {
	case len(info.Holders) == 0:
		return info, driver.Fail(driver.NotHeld, nil)
	case !b.st.BrokenBy(req.Fence):
		return info, driver.Failf(driver.Stale, "nobody holds fence %d: the highest is %d", req.Fence, info.Fence)
	}
	b.touch()
	b.st.RemoveHeld()
	b.settle()
	if err := b.save(); err != nil {
		return info, err
	}
	if err := e.record(req, info); err != nil {
		failed := unavailable("the name was broken, but not recorded in", e.path(breaksFile), err)
		failed.Outcome = driver.Applied
		return info, failed
	}
	return info, nil
}

// breaksFile is the record of all breaks. It only grows.
const breaksFile = "breaks.log"

type breakEntry struct {
	Time    time.Time     `json:"time"`
	By      string        `json:"by"`
	Name    string        `json:"name"`
	Reason  string        `json:"reason"`
	Holders []breakHolder `json:"holders"`
}

type breakHolder struct {
	Owner string `json:"owner"`
	Mode  string `json:"mode"`
	Fence int64  `json:"fence"`
}

// record appends one line: the kernel puts every write at the end of the file as it is then,
// so that lines of several processes do not mix.
func (e *Engine) record(req driver.BreakRequest, info driver.Info) error {
	entry := breakEntry{Time: time.Now().UTC(), By: req.By, Name: req.Name, Reason: req.Reason}
	for _, h := range info.Holders {
		entry.Holders = append(entry.Holders, breakHolder{h.Owner, h.Mode.String(), h.Fence})
	}
	line, err := json.Marshal(entry)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(e.path(breaksFile), openFlags|os.O_APPEND|os.O_CREATE, fileMode(e.books.mode))
	if err != nil {
		return err
	}
	if e.books.mode != 0 {
		shareGroup(file.Name(), e.folder)
		_ = file.Chmod(fileMode(e.books.mode)) // another user's file has its mode already
	}
	_, err = file.Write(append(line, '\n'))
	return errors.Join(err, file.Close())
}
