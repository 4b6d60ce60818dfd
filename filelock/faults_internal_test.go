//go:build unix

package filelock

import (
	"bytes"
	"context"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/ledger"
)

func openForFault(t *testing.T, folder string) *Engine {
	t.Helper()
	e, err := Open(folder, Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func faultRequest(name string, token byte) driver.Request {
	return driver.Request{Name: name, Mode: driver.Exclusive, Token: driver.Token{token}, Owner: "o", TTL: time.Second, Span: 1}
}

// A wait that cannot be stored leaves its channel in the map of waiters for ever.
func TestQueueLeak(t *testing.T) {
	folder := t.TempDir()
	a, b := openForFault(t, folder), openForFault(t, folder)
	ctx := context.Background()
	held := faultRequest("n", 1)
	if _, err := a.Acquire(ctx, held); err != nil {
		t.Fatal(err)
	}
	// b's book gets a file that cannot be written, which stands for EIO or a quota.
	book, err := b.books.get("n", true)
	if err != nil {
		t.Fatal(err)
	}
	ro, err := os.OpenFile(book.path, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	rw := book.file
	book.file = ro
	for i := range 5 {
		req := faultRequest("n", byte(10+i))
		req.Wait = true
		if _, err := b.Acquire(ctx, req); err == nil {
			t.Fatal("granted")
		}
	}
	book.file = rw
	ro.Close()
	b.books.done(book)
	if n := b.Waiting(); n != 0 {
		t.Errorf("%d waiters are left after calls that failed", n)
	}
}

// interleaved is a file that is changed while its page is copied: pread(2) copies without a
// lock on ext4, btrfs and tmpfs.
type interleaved struct {
	grower
	at        int
	meanwhile func()
}

func (r *interleaved) ReadAt(p []byte, off int64) (int, error) {
	if r.meanwhile == nil || off != 0 {
		return bytes.NewReader(r.b).ReadAt(p, off)
	}
	n, err := bytes.NewReader(r.b[:r.at]).ReadAt(p[:r.at], 0)
	if err != nil {
		return n, err
	}
	f := r.meanwhile
	r.meanwhile = nil
	f()
	m, err := bytes.NewReader(r.b).ReadAt(p[r.at:], int64(r.at))
	return n + m, err
}

// A reading without the guard must answer a state that was current during the reading.
func TestViewIsNotOld(t *testing.T) {
	var r interleaved
	var st state
	var buf []byte
	put := func(token byte) {
		st.Shares = st.Shares[:0]
		if token != 0 {
			st.Shares = append(st.Shares, ledger.Share{Token: driver.Token{token}, Mode: driver.Exclusive, State: ledger.Held,
				Home: string(make([]byte, memberIDSize)), Owner: "somebody"})
		}
		if _, err := store(&r, &st, "n", &buf); err != nil {
			t.Fatal(err)
		}
	}
	put(1)                           // generation 1
	put(0)                           // 2: slot 0, free
	put(7)                           // 3: slot 1, held by 7: granted and answered before the reading begins
	r.at = slotSize + headerSize + 8 // slot 0 and the header of slot 1 are copied, then:
	r.meanwhile = func() {
		// The holder of 7 is still there in every state from here on.
		st.Shares[0].Owner = "somebody, 4"
		if _, err := store(&r, &st, "n", &buf); err != nil {
			t.Fatal(err)
		}
		st.Shares[0].Owner = "somebody, 5"
		if _, err := store(&r, &st, "n", &buf); err != nil {
			t.Fatal(err)
		}
	}
	var v viewer
	_, err := v.read(&r, "f")
	if err == nil && v.st.Find(driver.Token{7}) == nil {
		t.Errorf("the reading shows generation %d: the share of generation 3 and later is missing, a renewal would answer Lost", v.st.gen)
	}
}

// A header that claims a negative length, on a system where int has 32 bits.
func TestHeaderLength(t *testing.T) {
	for _, flags := range []byte{0, flagBody} {
		file := NewFile("n")
		file[slotSize+5] = flags
		copy(file[slotSize+16:], []byte{0xff, 0xff, 0xff, 0xff})
		_, _, _ = ReadFile(file) // whatever it answers, it answers
	}
}

// Somebody who may write to the folder plants a pipe where the record of breaks belongs.
func TestBreaksPipe(t *testing.T) {
	folder := t.TempDir()
	e := openForFault(t, folder)
	if err := syscall.Mkfifo(e.path(breaksFile), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if _, err := e.Acquire(ctx, faultRequest("n", 1)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { _, err := e.Break(ctx, driver.BreakRequest{Name: "n"}); done <- err }()
	select {
	case <-done: // with or without its record, it comes back
	case <-time.After(3 * time.Second):
		t.Error("Break does not return, and holds the guard of the name")
		f, _ := os.OpenFile(e.path(breaksFile), os.O_RDONLY|syscall.O_NONBLOCK, 0)
		defer f.Close()
		<-done
	}
}

func TestBreaksLink(t *testing.T) {
	folder := t.TempDir()
	e := openForFault(t, folder)
	target := t.TempDir() + "/profile"
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, e.path(breaksFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Acquire(context.Background(), faultRequest("n", 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Break(context.Background(), driver.BreakRequest{Name: "n"}); err == nil {
		t.Error("a break without a record")
	}
	if b, _ := os.ReadFile(target); len(b) > 0 {
		t.Errorf("the record went out of the folder: %s", b)
	}
}
