package testserver

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// Ports come from below the range out of which systems serve outgoing connections and port 0
// (Linux: from 32768, others: from 49152): a server that is down keeps its port for when it
// comes back. The bus of a cluster's node, 10000 above, stays below that range too.
const (
	lowestPort  = 11000
	highestPort = 22000
	busOffset   = 10000
)

// reservePort finds a free port of the loopback, and likewise the ports at the given offsets
// from it, and keeps them until they are released.
//
// The UDP port of the same number, which nothing else here uses, stands for the reservation:
// it holds between processes on every system and ends with the process.
func reservePort(t testing.TB, offsets ...int) (port int, release func()) {
	t.Helper()
	var err error
	for range 200 {
		port = lowestPort + rand.IntN(highestPort-lowestPort)
		if release, err = reserve(port, offsets); err == nil {
			return port, release
		}
	}
	t.Fatalf("no free port: %v", err)
	return 0, nil
}

func reserve(port int, offsets []int) (release func(), err error) {
	var held []net.PacketConn
	release = func() {
		for _, c := range held {
			c.Close()
		}
	}
	for _, offset := range append([]int{0}, offsets...) {
		addr := loopback(port + offset)
		c, err := net.ListenPacket("udp", addr)
		if err != nil {
			release()
			return nil, err
		}
		held = append(held, c)
		l, err := net.Listen("tcp", addr) // a program that knows nothing of reservations?
		if err != nil {
			release()
			return nil, err
		}
		if err := l.Close(); err != nil {
			release()
			return nil, err
		}
	}
	return release, nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// errPortTaken is why a server did not start: someone was faster, or a process that is being
// started has, until it runs its own program, what its parent has just closed.
var errPortTaken = errors.New("the port is in use")
