package main

import (
	"errors"
	"os"
	"sync/atomic"
	"time"
	"unsafe"
)

// register is memory that all contenders for a lock share, across processes. Who holds the
// lock writes itself into it and counts with a read and a write that are not one step, so
// that two holders at once leave traces: an overlap, or a count that is lost.
type register struct {
	holder   atomic.Int64 // 0 for nobody
	counter  atomic.Int64
	overlaps atomic.Int64
	process  atomic.Int64 // of the last holder
	released atomic.Int64 // when it began to release, in ns of the wall clock
}

const registerSize = 4096

// newRegister makes a file for openRegister.
func newRegister(path string) error { return os.WriteFile(path, make([]byte, registerSize), 0o600) }

// unmap ends the use of a register.
func unmap(r *register) error {
	return unmapShared(unsafe.Slice((*byte)(unsafe.Pointer(r)), registerSize))
}

func openRegister(path string) (*register, error) {
	data, err := mapShared(path, registerSize)
	if err != nil {
		return nil, err
	}
	if uintptr(unsafe.Pointer(&data[0]))%8 != 0 {
		return nil, errors.New("the shared memory is not aligned")
	}
	return (*register)(unsafe.Pointer(&data[0])), nil
}

// handover is what a holder learns on entering.
type handover struct {
	other bool // the holder before it was another process
	took  time.Duration
}

// enter notes that contender me of process has the lock since now.
func (r *register) enter(me, process int64, now time.Time) handover {
	if r.holder.Swap(me) != 0 {
		r.overlaps.Add(1)
	}
	last := r.process.Load()
	return handover{other: last != 0 && last != process, took: time.Duration(now.UnixNano() - r.released.Load())}
}

// section is what the lock protects: it lasts for d.
func (r *register) section(d time.Duration) {
	seen := r.counter.Load()
	for end := time.Now().Add(d); d > 0 && time.Now().Before(end); {
	}
	r.counter.Store(seen + 1)
}

// leave notes that me is about to release the lock.
func (r *register) leave(me, process int64) {
	r.process.Store(process)
	r.released.Store(time.Now().UnixNano())
	if !r.holder.CompareAndSwap(me, 0) {
		r.overlaps.Add(1)
	}
}
