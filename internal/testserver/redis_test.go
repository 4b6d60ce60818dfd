package testserver_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

func TestReplies(t *testing.T) {
	t.Parallel()
	s := plain(t)
	want(t, "OK", s, "SET", "k", "line\r\nline")
	want(t, "line\r\nline", s, "GET", "k")
	want(t, nil, s, "GET", "none")
	want(t, int64(1), s, "DEL", "k")
	want(t, "[1 [two <nil>] []]", printed{s}, "EVAL", "return {1, {'two', false}, {}}", "0")
	_, err := s.Do("NOSUCH")
	var reply testserver.ReplyError
	if !errors.As(err, &reply) || !strings.HasPrefix(err.Error(), "ERR unknown command") {
		t.Errorf("unknown command: %v", err)
	}
	list := do(t, s, "EVAL", "return {1, {err='BAD thing'}}", "0").([]any)
	if list[1] != testserver.ReplyError("BAD thing") {
		t.Errorf("error in an array: %#v", list)
	}
}

// printed has replies as text, which compares arrays.
type printed struct{ doer }

func (p printed) Do(args ...string) (any, error) {
	reply, err := p.doer.Do(args...)
	return fmt.Sprint(reply), err
}

func TestKillRestartStop(t *testing.T) {
	t.Parallel()
	for _, durable := range []bool{false, true} {
		s := testserver.Redis(t, testserver.RedisOptions{AppendOnly: durable})
		addr, first := s.Addr(), s.PID()
		do(t, s, "SET", "k", "v")
		s.Kill()
		if alive(first) {
			t.Error("killed, and alive")
		}
		if _, err := s.Do("PING"); err == nil {
			t.Error("killed, and answers")
		}
		s.Restart()
		kept := any(nil)
		if durable {
			kept = "v"
		}
		want(t, kept, s, "GET", "k")
		if s.Addr() != addr || s.PID() == first {
			t.Errorf("restarted at %s as %d, was at %s as %d", s.Addr(), s.PID(), addr, first)
		}
		s.Pause()
		s.Stop() // orderly, frozen or not
		if !strings.Contains(s.LogTail(), "bye bye") {
			t.Errorf("log of an orderly end:\n%s", s.LogTail())
		}
		s.Start()
		want(t, kept, s, "GET", "k")
		s.RestartEmpty()
		want(t, nil, s, "GET", "k")
	}
}

func TestPauseResume(t *testing.T) {
	t.Parallel()
	s := plain(t)
	c, err := s.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.Pause()
	if err := c.Send("SET", "k", "v"); err != nil {
		t.Fatal(err)
	}
	s.Resume()
	if reply, err := c.Receive(); reply != "OK" || err != nil {
		t.Errorf("after the pause: %v, %v", reply, err)
	}
}

func TestPasswordAndUsers(t *testing.T) {
	t.Parallel()
	s := testserver.Redis(t, testserver.RedisOptions{
		Password: `pass "word" #1`,
		Users:    []string{"app on >secret ~app:* +get"},
	})
	want(t, "PONG", s, "PING")
	c := connect(t, s.Addr())
	if _, err := c.Do("PING"); err == nil || !strings.HasPrefix(err.Error(), "NOAUTH") {
		t.Errorf("without a password: %v", err)
	}
	want(t, "OK", c, "AUTH", `pass "word" #1`)
	want(t, "OK", c, "SET", "k", "v")
	want(t, "OK", c, "AUTH", "app", "secret")
	want(t, nil, c, "GET", "app:k")
	if _, err := c.Do("GET", "k"); err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
		t.Errorf("a key of others: %v", err)
	}
}

func TestReplicaOf(t *testing.T) {
	t.Parallel()
	ca := testserver.NewCA(t)
	for _, options := range []testserver.RedisOptions{
		{Password: "secret"},
		{TLS: &testserver.TLSOptions{CA: ca, ClientCert: true}},
	} {
		master := testserver.Redis(t, options)
		options.ReplicaOf = master.Addr()
		replica := testserver.Redis(t, options)
		do(t, master, "SET", "k", "v")
		eventually(t, "the replica has the key", func() bool {
			v, err := replica.Do("GET", "k")
			return err == nil && v == "v"
		})
		if _, err := replica.Do("SET", "k", "w"); err == nil || !strings.HasPrefix(err.Error(), "READONLY") {
			t.Errorf("write to a replica: %v", err)
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	s := testserver.Redis(t, testserver.RedisOptions{TLS: &testserver.TLSOptions{}})
	want(t, "PONG", s, "PING")
	if err := handshake(s.Addr(), s.TLSConfig()); err != nil {
		t.Errorf("with the right authority: %v", err)
	}
	var unknown x509.UnknownAuthorityError
	if err := handshake(s.Addr(), testserver.NewCA(t).ClientConfig()); !errors.As(err, &unknown) {
		t.Errorf("with another authority: %v", err)
	}
	if _, err := connect(t, s.Addr()).Do("PING"); err == nil {
		t.Error("answers without TLS")
	}
}

func TestTLSBadCertificates(t *testing.T) {
	t.Parallel()
	expired := testserver.Redis(t, testserver.RedisOptions{TLS: &testserver.TLSOptions{Expired: true}})
	var invalid x509.CertificateInvalidError
	if err := handshake(expired.Addr(), expired.TLSConfig()); !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
		t.Errorf("expired: %v", err)
	}
	other := testserver.Redis(t, testserver.RedisOptions{TLS: &testserver.TLSOptions{Hosts: []string{"other.example"}}})
	var host x509.HostnameError
	if err := handshake(other.Addr(), other.CA().ClientConfig()); !errors.As(err, &host) {
		t.Errorf("another host's: %v", err)
	}
}

func TestTLSClientCertificate(t *testing.T) {
	t.Parallel()
	s := testserver.Redis(t, testserver.RedisOptions{TLS: &testserver.TLSOptions{ClientCert: true}})
	want(t, "PONG", s, "PING")
	config := s.TLSConfig()
	config.Certificates = nil
	if err := handshake(s.Addr(), config); err == nil {
		t.Error("lets in who shows no certificate")
	}
}

// handshake connects and reads a reply: a server that dislikes the client's certificate says
// so after the client's side of the handshake is done.
func handshake(addr string, config *tls.Config) error {
	c, err := tls.Dial("tcp", addr, config)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

// TestManyAtOnce: servers that look for a port at the same time all find one.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	const n = 8
	servers := make([]*testserver.RedisServer, n)
	var all sync.WaitGroup
	for i := range servers {
		all.Go(func() { servers[i] = plain(t) })
	}
	all.Wait()
	if t.Failed() {
		return
	}
	pids := map[any]bool{}
	for _, s := range servers {
		info, err := s.Info()
		if err != nil {
			t.Fatal(err)
		}
		pids[info["process_id"]] = true
	}
	if len(pids) != n {
		t.Errorf("%d processes for %d servers", len(pids), n)
	}
}

func TestGoneAfterTheTest(t *testing.T) {
	t.Parallel()
	var pids []int
	t.Run("test", func(t *testing.T) {
		running, frozen := plain(t), plain(t)
		frozen.Pause()
		pids = []int{running.PID(), frozen.PID()}
	})
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d is left", pid)
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	s := testserver.Redis(t, testserver.RedisOptions{Config: []string{"maxmemory 3mb"}})
	want(t, "[maxmemory 3145728]", printed{s}, "CONFIG", "GET", "maxmemory")
}
