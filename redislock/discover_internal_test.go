package redislock

import (
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

func TestObjections(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer client.Close()
	e, err := New(client, Config{Safety: PartitionSafe, DataNodes: 3})
	if err != nil {
		t.Fatal(err)
	}
	master := func(version string, replicas string) *server {
		return &server{flavour: "redis", version: version, mode: "standalone", role: "master", info: map[string]string{"connected_slaves": replicas}}
	}
	for _, c := range []struct {
		s    *server
		says string
	}{
		{master("6.2.0", "2"), ""},
		{master("7.4.1", "0"), ""},
		{master("6.0.20", "2"), "Redis 6.0.20 is too old"},
		{master("5.0", "2"), "upgrade to Redis 6.2"},
		{master("10.0.0", "2"), ""},
		{master("unstable", "2"), ""},
		{master("7.0.0", "3"), "there are 4 data nodes"},
		{master("7.0.0", "12"), "take replicas away"},
		{&server{flavour: "valkey", version: "1.0.0", mode: "standalone", role: "master"}, ""},
		{&server{}, ""},
		{&server{mode: "sentinel"}, "is a Sentinel"},
		{&server{mode: "cluster"}, "redis+cluster://127.0.0.1:1"},
		{&server{role: "replica", info: map[string]string{"master_host": "h", "master_port": "1"}}, "replica of h:1"},
		{&server{epoch: &epoch{constants: "30000 1 3"}}, ""},
		{&server{epoch: &epoch{constants: "30000 2 3"}}, `"30000 2 3"`},
	} {
		err := refusal(e.objections(c.s))
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%+v: %v", c.s, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%+v: %v, want it to say %q", c.s, err, c.says)
		}
	}
}

func TestSurveyOfOtherFlavours(t *testing.T) {
	s := &server{info: fieldsOf("# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\nserver_mode:cluster\r\nrole:slave\r\n")}
	s.complete()
	if s.name() != "Valkey 8.0.1" || s.mode != "cluster" || s.role != "replica" {
		t.Errorf("%s, mode %s, role %s", s.name(), s.mode, s.role)
	}
	for _, reply := range []any{
		map[any]any{"server": "redis", "proto": int64(3)},
		[]any{"server", "redis", "proto", int64(2), "odd"},
	} {
		if got := pairsOf(reply)["server"]; got != "redis" {
			t.Errorf("pairsOf(%v): server is %q", reply, got)
		}
	}
	for _, bad := range []string{"", "v1 a b c", "v2 a 1 c", "v1 a 1"} {
		if parseEpoch(bad) != nil {
			t.Errorf("%q was taken for an epoch", bad)
		}
	}
}
