//go:build unix

package redislock

import "syscall"

// looks says that silent can tell.
const looks = true

// silent reports whether the connection is open and nothing came on it, on which nothing is
// awaited. It looks without waiting, and leaves what it sees. What it sees of TLS is not for it to
// read: anything counts.
func (s *socket) silent() bool {
	if s.raw == nil {
		return false
	}
	if s.look == nil {
		s.look = s.peek
	}
	s.empty = false
	return s.raw.Read(s.look) == nil && s.empty
}

// peek is what silent does with the file.
func (s *socket) peek(fd uintptr) bool {
	_, _, err := syscall.Recvfrom(int(fd), s.peeked[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	s.empty = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
	return true
}
