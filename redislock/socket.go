package redislock

import (
	"net"
	"syscall"
)

// socket is what is below a connection, to look whether that still lives.
type socket struct {
	raw    syscall.RawConn // nil where there is none that is known
	look   func(fd uintptr) bool
	empty  bool
	peeked [1]byte
}

// socketOf returns the socket below a connection, nil where there is none that is known.
func socketOf(conn net.Conn) syscall.RawConn {
	if secured, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secured.NetConn()
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}
