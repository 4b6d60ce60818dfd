package testserver_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// behind returns a server and a proxy before it.
func behind(t *testing.T) (*testserver.RedisServer, *testserver.TCPProxy) {
	t.Helper()
	s := plain(t)
	return s, testserver.Proxy(t, s.Addr())
}

// silent is true when nothing comes on the connection for a while. Only a proxy that lets
// something through can make it wrong, a slow machine cannot.
func silent(t *testing.T, c net.Conn) bool {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err := c.Read(make([]byte, 1))
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func raw(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// receive reads exactly what is expected.
func receive(t *testing.T, c net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("received %q (%v), want %q", got, err, text)
	}
}

// ending returns how a connection ends: EOF or a reset.
func ending(t *testing.T, c net.Conn) error {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, c)
	if err == nil {
		return io.EOF
	}
	return err
}

func TestProxyForwards(t *testing.T) {
	t.Parallel()
	s, p := behind(t)
	big := make([]byte, 3<<20)
	for i := range big {
		big[i] = byte(rand.Uint32())
	}
	c := connect(t, p.Addr())
	want(t, "OK", c, "SET", "big", string(big))
	if got, _ := do(t, c, "GET", "big").(string); !bytes.Equal([]byte(got), big) {
		t.Error("the bytes have changed")
	}
	want(t, "OK", s, "SET", "k", "v")
	want(t, "v", connect(t, p.Addr()), "GET", "k")
	stats := p.Stats()
	if stats.Connections != 2 || stats.Bytes[testserver.Up] < len(big) || stats.Bytes[testserver.Down] < len(big) {
		t.Errorf("counted %+v", stats)
	}
}

func TestProxyFreeze(t *testing.T) {
	t.Parallel()
	s, p := behind(t)
	c := raw(t, p.Addr())
	send(t, c, "PING\r\n")
	receive(t, c, "+PONG\r\n")

	p.FreezeDown()
	send(t, c, "SET down 1\r\n")
	eventually(t, "the request is carried out", func() bool { return do(t, s, "GET", "down") == "1" })
	if !silent(t, c) {
		t.Error("a reply came through")
	}
	p.Thaw()
	receive(t, c, "+OK\r\n")

	p.FreezeUp()
	send(t, c, "SET up 1\r\n")
	if !silent(t, c) {
		t.Error("a reply came through")
	}
	want(t, nil, s, "GET", "up")
	p.Thaw()
	receive(t, c, "+OK\r\n")

	p.Freeze()
	fresh := raw(t, p.Addr())
	send(t, fresh, "PING\r\n")
	if !silent(t, fresh) {
		t.Error("a new connection got through")
	}
	p.Thaw()
	receive(t, fresh, "+PONG\r\n")
}

// TestProxyFreezeHidesTheEnd: who is behind a frozen network does not learn of a crash.
func TestProxyFreezeHidesTheEnd(t *testing.T) {
	t.Parallel()
	s, p := behind(t)
	c := raw(t, p.Addr())
	send(t, c, "PING\r\n")
	receive(t, c, "+PONG\r\n")
	p.Freeze()
	s.Kill()
	if !silent(t, c) {
		t.Error("the end came through")
	}
	p.Thaw()
	ending(t, c)
}

func TestProxyDrop(t *testing.T) {
	t.Parallel()
	s, p := behind(t)
	c := raw(t, p.Addr())
	p.Drop(testserver.Down)
	send(t, c, "SET k 1\r\n")
	eventually(t, "the reply is lost", func() bool { return p.Stats().Dropped[testserver.Down] > 0 })
	want(t, "1", s, "GET", "k")
	p.Thaw()
	if err := ending(t, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection that lost a reply ends with %v", err)
	}

	c = raw(t, p.Addr())
	send(t, c, "PING\r\n")
	receive(t, c, "+PONG\r\n")
	p.Partition()
	send(t, c, "SET k 2\r\n")
	eventually(t, "the request is lost", func() bool { return p.Stats().Dropped[testserver.Up] > 0 })
	fresh := raw(t, p.Addr())
	send(t, fresh, "PING\r\n")
	if !silent(t, fresh) {
		t.Error("a new connection got through")
	}
	p.Heal()
	receive(t, fresh, "+PONG\r\n")
	want(t, "1", s, "GET", "k")
	ending(t, c)
}

func TestProxyCut(t *testing.T) {
	t.Parallel()
	s, p := behind(t)
	for _, test := range []struct {
		cut  func()
		want error
	}{{p.Cut, syscall.ECONNRESET}, {p.HangUp, io.EOF}} {
		c := raw(t, p.Addr())
		send(t, c, "PING\r\n")
		receive(t, c, "+PONG\r\n")
		test.cut()
		if err := ending(t, c); !errors.Is(err, test.want) {
			t.Errorf("cut with %v, want %v", err, test.want)
		}
	}
	eventually(t, "the server sees nobody but the one who asks", func() bool {
		info, err := s.Info()
		return err == nil && info["connected_clients"] == "1"
	})
	want(t, "PONG", connect(t, p.Addr()), "PING")
}

func TestProxyLosesReplies(t *testing.T) {
	t.Parallel()
	s, p := behind(t)
	incr := func(c net.Conn) { t.Helper(); send(t, c, "INCR n\r\n") }

	c := raw(t, p.Addr())
	p.CutAfterReplyBytes(0)
	incr(c)
	ending(t, c)
	want(t, "1", s, "GET", "n")

	c = raw(t, p.Addr())
	p.CutAfterReplyBytes(6)
	incr(c)
	receive(t, c, ":2\r\n")
	incr(c)
	receive(t, c, ":3")
	ending(t, c)

	p.DropReplies(1)
	mute, other := raw(t, p.Addr()), raw(t, p.Addr())
	incr(mute)
	eventually(t, "the reply is lost", func() bool { return p.Stats().Faults == 3 })
	incr(other)
	receive(t, other, ":5\r\n")
	incr(mute)
	eventually(t, "requests go on", func() bool { return do(t, s, "GET", "n") == "6" })
	if !silent(t, mute) {
		t.Error("a reply came after a lost one")
	}
}

func TestProxyAimsAtARequest(t *testing.T) {
	t.Parallel()
	s, p := behind(t)
	c, other := raw(t, p.Addr()), raw(t, p.Addr())
	ping := func(c net.Conn) { t.Helper(); send(t, c, "PING\r\n"); receive(t, c, "+PONG\r\n") }

	p.CutReplyTo("SET k")
	ping(c)
	ping(other)
	send(t, c, "SE")
	eventually(t, "half of the request is there", func() bool { return p.Stats().Bytes[testserver.Up] == 14 })
	send(t, c, "T k 1\r\n")
	ending(t, c)
	want(t, "1", s, "GET", "k")
	ping(other)

	p.DropReplyTo("SET k")
	send(t, other, "SET k 2\r\n")
	eventually(t, "the reply is lost", func() bool { return p.Stats().Faults == 2 })
	if !silent(t, other) {
		t.Error("the reply came through")
	}
	want(t, "2", s, "GET", "k")

	p.CutRequest("") // any
	c = raw(t, p.Addr())
	send(t, c, "SET k 3\r\n")
	ending(t, c)
	p.CutRequest("SET k")
	c = raw(t, p.Addr())
	ping(c)
	send(t, c, "SET k 3\r\n")
	ending(t, c)
	want(t, "2", s, "GET", "k")
	ping(raw(t, p.Addr()))
}

func TestProxyFreezeMarked(t *testing.T) {
	t.Parallel()
	s, p := behind(t)
	p.Mark("SET k")
	c, other := raw(t, p.Addr()), raw(t, p.Addr())
	send(t, c, "SET k 1\r\n")
	receive(t, c, "+OK\r\n")
	p.FreezeMarked()
	send(t, c, "SET k 2\r\n")
	send(t, other, "PING\r\n")
	receive(t, other, "+PONG\r\n")
	if !silent(t, c) {
		t.Error("a reply came through")
	}
	want(t, "1", s, "GET", "k")
	send(t, other, "SET k 3\r\n")
	eventually(t, "the request that marks is carried out", func() bool { return do(t, s, "GET", "k") == "3" })
	if !silent(t, other) {
		t.Error("the reply came through")
	}
	p.Thaw()
	receive(t, other, "+OK\r\n")
	receive(t, c, "+OK\r\n")
	want(t, "2", s, "GET", "k")
}

func TestProxyRefuse(t *testing.T) {
	t.Parallel()
	_, p := behind(t)
	c := connect(t, p.Addr())
	p.Refuse()
	if _, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("refuses with %v", err)
	}
	want(t, "PONG", c, "PING")
	p.Heal()
	want(t, "PONG", connect(t, p.Addr()), "PING")
}

func TestProxyDelay(t *testing.T) {
	t.Parallel()
	s, p := behind(t)
	c := raw(t, p.Addr())
	p.Delay(time.Hour)
	send(t, c, "SET k v\r\n")
	if !silent(t, c) {
		t.Error("the reply came at once")
	}
	want(t, nil, s, "GET", "k")
	p.Delay(time.Millisecond) // each way
	receive(t, c, "+OK\r\n")
}

func TestProxyWithoutTarget(t *testing.T) {
	t.Parallel()
	s, p := behind(t)
	s.Kill()
	c, err := net.Dial("tcp", p.Addr()) // may be reset before it is known to be open
	if err == nil {
		err = ending(t, c)
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection to a dead server ends with %v", err)
	}
	s.Restart()
	want(t, "PONG", connect(t, p.Addr()), "PING")
}

// TestProxyLeavesNothing is not parallel: it counts goroutines.
func TestProxyLeavesNothing(t *testing.T) {
	s := plain(t)
	before := runtime.NumGoroutine()
	breaks := []func(p *testserver.TCPProxy){
		func(p *testserver.TCPProxy) {},
		(*testserver.TCPProxy).Freeze,
		(*testserver.TCPProxy).Partition,
		func(p *testserver.TCPProxy) { p.DropReplies(1) },
		func(p *testserver.TCPProxy) { p.Delay(time.Hour) },
	}
	for _, broken := range breaks {
		p := testserver.Proxy(t, s.Addr())
		c := raw(t, p.Addr())
		send(t, c, "PING\r\n")
		receive(t, c, "+PONG\r\n")
		broken(p)
		send(t, c, "PING\r\n")
		raw(t, p.Addr())
		if p.Stats().Dropped == [2]int{} {
			silent(t, c)
		}
		p.Close()
		p.Close()
		p.Allow() // comes too late
		if _, err := net.Dial("tcp", p.Addr()); err == nil {
			t.Error("closed, and accepts")
		}
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}
