package testserver_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// put writes a key through a member and reports whether the cluster took it.
func put(m *testserver.EtcdMember) error {
	client := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Post("http://"+m.Proxy().Addr()+"/v3/kv/put", "application/json", strings.NewReader(`{"key":"aw==","value":"dg=="}`))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	return nil
}

func TestEtcd(t *testing.T) {
	t.Parallel()
	for _, options := range []testserver.EtcdOptions{{}, {Current: true}} {
		c := testserver.Etcd(t, options)
		m := c.Members()[0]
		if c.Leader() != m {
			t.Error("the only member does not lead")
		}
		if err := put(m); err != nil {
			t.Error(err)
		}
		m.Kill()
		if put(m) == nil {
			t.Error("killed, and takes a write")
		}
		m.Start()
		c.AwaitReady()
		if err := put(m); err != nil {
			t.Error(err)
		}
	}
}

// An isolated member takes no writes, the others do; and it is one of them again afterwards.
func TestEtcdIsolate(t *testing.T) {
	t.Parallel()
	c := testserver.Etcd(t, testserver.EtcdOptions{Members: 3, Current: true})
	old := c.Leader()
	c.Isolate(old)
	for deadline := time.Now().Add(20 * time.Second); c.Leader() == old; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody took over")
		}
	}
	for _, m := range c.Members() {
		if err := put(m); (err == nil) != (m != old) {
			t.Errorf("isolated %v: %v", m == old, err)
		}
	}
	c.Rejoin()
	c.AwaitReady()
	if err := put(old); err != nil {
		t.Errorf("rejoined: %v", err)
	}
}
