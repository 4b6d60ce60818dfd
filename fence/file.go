package fence

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast"
)

// What stands behind the path of a guarded file to make those of its companions.
const (
	fencesSuffix = ".fences"      // the largest fences that were shown, a line for each name
	lockSuffix   = ".fences.lock" // empty, locked while one of the others changes; never replaced
	freshSuffix  = ".fences.new"  // what is about to take the place of one of the others
)

// File guards one file on a local disk, for the processes of one machine. The file is replaced
// as a whole: those who read it see what was there before, or what was written, and after a
// power failure it is one of the two. The largest fence that was shown is in a file beside it,
// with the same care.
//
// Every call locks a third file with flock(2) for as long as it takes, so a check and the
// write after it are one step among all who go through File; others must not write there. A
// process that is frozen just then keeps the others waiting until it goes on, dies, or their
// contexts end. None of the companions may be deleted while the file is in use.
//
// A File is also a [Store], for [HTTP] on one machine, and then needs no file at its path. It
// writes all its fences at each Open, so let them be hundreds of names rather than many
// thousands. It never forgets one.
//
// It is safe for concurrent use. On systems without flock(2), as Windows, all calls fail with
// holdfast.ErrUnsupported. Network file systems are not for it.
type File struct {
	path string
	cfg  FileConfig
}

// FileConfig configures a [File] guard. The zero value is ready for use.
type FileConfig struct {
	// Mode is that of the guarded file where it is created, and of the files beside it,
	// before the process's umask. Default 0600. A guarded file that exists keeps the mode it
	// has, and gets the user and group of the process.
	Mode fs.FileMode

	_ struct{}
}

// NewFile returns a guard of the file at path. It opens nothing. The folder has to be there, and
// be writable. What is wrong with its arguments is reported as one holdfast.ErrInvalid.
func NewFile(path string, cfg FileConfig) (*File, error) {
	if cfg.Mode == 0 {
		cfg.Mode = 0o600
	}
	var errs violations
	errs.check(path == "" || strings.ContainsRune(path, 0) || strings.HasSuffix(path, string(filepath.Separator)),
		"path is %.140q: give it the path of a file", path)
	errs.check(cfg.Mode&^0o777 != 0 || cfg.Mode&0o600 != 0o600,
		"Mode is %v: it must have permissions only, and let the owner read and write", cfg.Mode)
	abs, err := filepath.Abs(path) // so that a change of the working directory changes nothing
	if err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return nil, invalid("new fence.File", "", errs...)
	}
	return &File{path: abs, cfg: cfg}, nil
}

// Open registers the fence of the lease, unless a larger one is registered for its name: then it
// fails with holdfast.ErrStale. A fence that is new there is on the disk when it returns nil.
func (f *File) Open(ctx context.Context, l Lease) error {
	return f.locked(ctx, "fence.File open", l, func(n numbers, all fences) error {
		switch stored := all[n.name]; {
		case stored > n.fence:
			return stale("fence.File open", n, stored)
		case stored == n.fence:
			return nil
		}
		all[n.name] = n.fence
		return f.replace(fencesSuffix, all.encode(), f.cfg.Mode)
	})
}

// Check returns nil if the fence of the lease is the registered one, and otherwise fails with
// holdfast.ErrStale. It guards nothing that comes after it: see [File.Write].
func (f *File) Check(ctx context.Context, l Lease) error {
	return f.locked(ctx, "fence.File check", l, func(n numbers, all fences) error {
		return all.check("fence.File check", n)
	})
}

// Write replaces the file with data, if the fence of the lease is the registered one, and
// otherwise fails with holdfast.ErrStale. When it returns nil the data is on the disk; after
// another error than ErrStale and ErrInvalid it may be.
//
// The path has to be that of a regular file or of none. A symbolic link is refused, as the
// file behind it can be reached by other paths and be guarded there by other fences; so does a
// hard link, but that is not noticed.
func (f *File) Write(ctx context.Context, l Lease, data []byte) error {
	const op = "fence.File write"
	return f.locked(ctx, op, l, func(n numbers, all fences) error {
		if err := all.check(op, n); err != nil {
			return err
		}
		mode := f.cfg.Mode
		switch info, err := os.Lstat(f.path); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case !info.Mode().IsRegular():
			return invalid(op, n.name, fmt.Errorf("%s is no regular file: name the file itself", f.path))
		default:
			mode = info.Mode().Perm()
		}
		return f.replace("", data, mode)
	})
}

// locked calls do with what is registered, while nobody else may change it.
func (f *File) locked(ctx context.Context, op string, l Lease, do func(numbers, fences) error) error {
	n, err := read(ctx, op, l)
	if err != nil {
		return err
	}
	lock, err := os.OpenFile(f.path+lockSuffix, os.O_CREATE|os.O_RDWR|openFlags, f.cfg.Mode)
	if err != nil {
		return failed(op, n.name, holdfast.NotApplied, err)
	}
	defer lock.Close() // which unlocks it
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		ok, err := tryLock(lock)
		if errors.Is(err, errors.ErrUnsupported) {
			return &holdfast.Error{Op: op, Name: n.name, Kind: holdfast.ErrUnsupported, Outcome: holdfast.NotApplied, Err: err}
		}
		if err != nil {
			return failed(op, n.name, holdfast.NotApplied, fmt.Errorf("lock %s: %w", lock.Name(), err))
		}
		if ok {
			break
		}
		select {
		case <-ctx.Done():
			return failed(op, n.name, holdfast.NotApplied, fmt.Errorf("%s is locked by another process, which may be frozen: %w", lock.Name(), ctx.Err()))
		case <-time.After(pause):
		}
	}
	all, err := f.load()
	if err != nil {
		return failed(op, n.name, holdfast.NotApplied, err)
	}
	return wrap(op, n.name, do(n, all))
}

// replace puts data in the place of the file with that suffix, so that at any moment, and after
// a power failure, either is there as a whole. The lock is held, so the fresh file is ours; one
// that is there was left by a process that died.
func (f *File) replace(suffix string, data []byte, mode fs.FileMode) (err error) {
	fresh := f.path + freshSuffix
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(fresh, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil && suffix == "" {
		err = file.Chmod(mode) // what the file had, whatever the umask is
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(fresh))
	}
	if err := os.Rename(fresh, f.path+suffix); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(f.path))
}

// fences are what is registered: the largest fence of each name.
type fences map[string]int64

func (all fences) check(op string, n numbers) error {
	if stored := all[n.name]; stored != n.fence {
		return stale(op, n, stored)
	}
	return nil
}

// fencesHeader is the first line of the file with the fences.
const fencesHeader = "holdfast fences 1"

// encode writes one line for each name: the fence and the quoted name. The last line counts
// them, so that a file that was cut short is noticed.
func (all fences) encode() []byte {
	b := []byte(fencesHeader + "\n")
	for name, fence := range all {
		b = strconv.AppendInt(b, fence, 10)
		b = append(b, ' ')
		b = append(strconv.AppendQuote(b, name), '\n')
	}
	return fmt.Appendf(b, "end %d\n", len(all))
}

// load reads what is registered, and nothing from a file that encode did not write.
func (f *File) load() (fences, error) {
	path := f.path + fencesSuffix
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fences{}, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := decode(string(data))
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w: delete it when no process is left that held the lock before", path, err)
	}
	return all, nil
}

func decode(text string) (fences, error) {
	lines := strings.Split(text, "\n")
	last := len(lines) - 2
	if lines[0] != fencesHeader || last < 1 || lines[last+1] != "" || lines[last] != fmt.Sprintf("end %d", last-1) {
		return nil, errors.New("its first or last line is not as it was written")
	}
	all := make(fences, last-1)
	for _, line := range lines[1:last] {
		number, quoted, _ := strings.Cut(line, " ")
		fence, err := strconv.ParseInt(number, 10, 64)
		name, bad := strconv.Unquote(quoted)
		if err != nil || bad != nil || fence < 1 || fence > MaxFence || all[name] != 0 {
			return nil, fmt.Errorf("it has the line %.80q", line)
		}
		all[name] = fence
	}
	return all, nil
}
