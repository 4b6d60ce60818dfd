//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package fence_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/fence"
)

func newFile(t *testing.T) (*fence.File, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.json")
	f, err := fence.NewFile(path, fence.FileConfig{})
	must(t, err)
	return f, path
}

func contents(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return string(data)
}

func TestFileWrite(t *testing.T) {
	f, path := newFile(t)
	ctx := t.Context()
	wantStale(t, f.Write(ctx, fence.Of("n", 33), []byte("unopened")), 33, 0)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("a refused write made a file: %v", err)
	}
	must(t, f.Open(ctx, fence.Of("n", 33)))
	must(t, f.Write(ctx, fence.Of("n", 33), []byte("one")))
	must(t, f.Write(ctx, fence.Of("n", 33), []byte("two")))
	must(t, f.Open(ctx, fence.Of("n", 34)))
	wantStale(t, f.Write(ctx, fence.Of("n", 33), []byte("late")), 33, 34)
	if got := contents(t, path); got != "two" {
		t.Fatalf("the file has %q", got)
	}
	must(t, f.Write(ctx, fence.Of("n", 34), nil))
	if got := contents(t, path); got != "" {
		t.Fatalf("the file has %q", got)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	if len(entries) != 3 { // the file, its fences and the lock
		t.Errorf("left behind: %v", entries)
	}
}

// Another process, or this one after a restart, finds what was registered, whatever the names.
func TestFileRemembers(t *testing.T) {
	f, path := newFile(t)
	names := []string{"a", "b c", `"q" \ n`, "ü\u2028", "9 9", strings.Repeat("x", 512), "end 1"}
	for i, name := range names {
		must(t, f.Open(t.Context(), fence.Of(name, int64(1760000000123456+i))))
	}
	again, err := fence.NewFile(path, fence.FileConfig{})
	must(t, err)
	for i, name := range names {
		n := int64(1760000000123456 + i)
		must(t, again.Check(t.Context(), fence.Of(name, n)))
		wantStale(t, again.Open(t.Context(), fence.Of(name, n-1)), n-1, n)
	}
}

// Many goroutines with many guards raise one fence; each write finds that nobody has overtaken
// it, or is refused. So what is in the file is the work of the largest fence that wrote, and the
// largest fence of all can write.
func TestFileRace(t *testing.T) {
	_, path := newFile(t)
	const most = 40
	var mu sync.Mutex
	var accepted int64
	var wg sync.WaitGroup
	for i := int64(1); i <= most; i++ {
		wg.Go(func() {
			f, err := fence.NewFile(path, fence.FileConfig{})
			l := fence.Of("n", i)
			if err == nil {
				err = f.Open(t.Context(), l)
			}
			if err == nil {
				err = f.Write(t.Context(), l, fmt.Append(nil, i))
			}
			switch {
			case err == nil:
				mu.Lock()
				accepted = max(accepted, i)
				mu.Unlock()
			case !errors.Is(err, holdfast.ErrStale):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := contents(t, path); accepted != most || got != fmt.Sprint(most) {
		t.Errorf("the file has %q, the largest accepted was %d of %d", got, accepted, most)
	}
}

// Damage is never taken for an empty register.
func TestFileDamaged(t *testing.T) {
	f, path := newFile(t)
	must(t, f.Open(t.Context(), fence.Of("n", 33)))
	must(t, f.Open(t.Context(), fence.Of("m", 34)))
	whole := contents(t, path+".fences")
	damaged := []string{"", "\n", strings.Replace(whole, "33", "x", 1), strings.Replace(whole, "fences 1", "fences 2", 1),
		strings.Replace(whole, "33", "-33", 1), strings.Replace(whole, `"m"`, `"n"`, 1), strings.Replace(whole, `"m"`, `m`, 1),
		strings.Replace(whole, "end 2", "end 3", 1), whole + "x"}
	for cut := range len(whole) {
		damaged = append(damaged, whole[:cut])
	}
	for _, text := range damaged {
		must(t, os.WriteFile(path+".fences", []byte(text), 0o600))
		for _, err := range []error{f.Open(t.Context(), fence.Of("n", 99)), f.Check(t.Context(), fence.Of("n", 33)), f.Write(t.Context(), fence.Of("n", 33), nil)} {
			if !errors.Is(err, holdfast.ErrUnavailable) || !strings.Contains(err.Error(), "damaged") {
				t.Fatalf("with %q: %v", text, err)
			}
		}
	}
	must(t, os.WriteFile(path+".fences", []byte(whole), 0o600))
	must(t, f.Check(t.Context(), fence.Of("n", 33)))
}

// What a process left that was killed between its steps is in nobody's way.
func TestFileAfterACrash(t *testing.T) {
	f, path := newFile(t)
	must(t, os.WriteFile(path+".fences.new", []byte("half"), 0o400))
	must(t, f.Open(t.Context(), fence.Of("n", 33)))
	must(t, os.WriteFile(path+".fences.new", []byte("half"), 0o400))
	must(t, f.Write(t.Context(), fence.Of("n", 33), []byte("whole")))
	if got := contents(t, path); got != "whole" {
		t.Errorf("the file has %q", got)
	}
}

// Somebody frozen in the middle of a call keeps others waiting, for as long as they want to wait.
func TestFileLockedByOthers(t *testing.T) {
	f, path := newFile(t)
	must(t, f.Open(t.Context(), fence.Of("n", 33)))
	frozen, err := os.Open(path + ".fences.lock")
	must(t, err)
	defer frozen.Close()
	must(t, syscall.Flock(int(frozen.Fd()), syscall.LOCK_EX))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Write(ctx, fence.Of("n", 33), []byte("x")) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	go func() { done <- f.Write(t.Context(), fence.Of("n", 33), []byte("x")) }()
	frozen.Close()
	must(t, <-done)
}

func TestFileModes(t *testing.T) {
	_, path := newFile(t)
	f, err := fence.NewFile(path, fence.FileConfig{Mode: 0o640})
	must(t, err)
	mode := func(path string) os.FileMode {
		info, err := os.Stat(path)
		must(t, err)
		return info.Mode()
	}
	l := fence.Of("n", 1)
	must(t, f.Open(t.Context(), l))
	must(t, f.Write(t.Context(), l, nil))
	if got := mode(path); got != 0o640 {
		t.Errorf("a new file has mode %v", got)
	}
	must(t, os.Chmod(path, 0o666))
	must(t, f.Write(t.Context(), l, nil))
	if got := mode(path); got != 0o666 {
		t.Errorf("a file of mode 0666 has %v after a write", got)
	}
	must(t, os.Remove(path))
	must(t, os.Symlink("elsewhere", path))
	wantInvalid(t, f.Write(t.Context(), l, nil), "regular file")
	must(t, os.Remove(path))
	must(t, os.Mkdir(path, 0o700))
	wantInvalid(t, f.Write(t.Context(), l, nil), "regular file")
}

func TestFileBadSettings(t *testing.T) {
	for _, path := range []string{"", "a\x00b", "folder/"} {
		_, err := fence.NewFile(path, fence.FileConfig{})
		wantInvalid(t, err, "path")
	}
	_, err := fence.NewFile("", fence.FileConfig{Mode: 0o040})
	wantInvalid(t, err, "path", "Mode")
	_, err = fence.NewFile("x", fence.FileConfig{Mode: os.ModeSetuid | 0o700})
	wantInvalid(t, err, "Mode")

	f, err := fence.NewFile(filepath.Join(t.TempDir(), "no", "folder"), fence.FileConfig{})
	must(t, err)
	if err := f.Open(t.Context(), fence.Of("n", 1)); !errors.Is(err, holdfast.ErrUnavailable) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a folder: %v", err)
	}
}
