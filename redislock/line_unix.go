//go:build unix

package redislock

import "syscall"

// looks says that silent can tell.
const looks = true

// silent reports whether the connection is open and nothing came on it, on which nothing is
// awaited. It looks without waiting, and leaves what it sees. What it sees of TLS is not for it to
// read: anything counts.
func (w *wire) silent() bool {
	if w.below == nil {
		return false
	}
	empty := false
	err := w.below.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		empty = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
		return true
	})
	return err == nil && empty
}
