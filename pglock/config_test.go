package pglock

import (
	"database/sql"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// TestBadConfig: every violation is named, with what would do, before anything is sent: there
// is no database behind this pool.
func TestBadConfig(t *testing.T) {
	for field, cfg := range map[string]Config{
		"Schema":      {Schema: `x"; DROP TABLE a; --`},
		"Encoding":    {Encoding: 7},
		"Connections": {Connections: MaxConnections + 1},
		"MaxTTL":      {MaxTTL: time.Millisecond},
		"Heartbeat":   {Heartbeat: time.Hour},
		"Timeout":     {Timeout: -time.Second},
	} {
		_, err := New(t.Context(), new(sql.DB), cfg)
		var d *driver.Error
		if !errors.As(err, &d) || d.Kind != driver.Invalid || !strings.Contains(err.Error(), field+" is ") {
			t.Errorf("%s: %v", field, err)
		}
		if _, err := InTx(t.Context(), nil, "name", cfg); !errors.As(err, &d) || d.Kind != driver.Invalid {
			t.Errorf("%s in a transaction: %v", field, err)
		}
	}
	_, err := New(t.Context(), new(sql.DB), Config{Schema: "A", Connections: -1, MaxTTL: -1, Heartbeat: 1, Timeout: 1})
	for _, field := range []string{"Schema", "Connections", "MaxTTL", "Heartbeat", "Timeout"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not named in %v", field, err)
		}
	}
}

func TestReadURL(t *testing.T) {
	u, err := url.Parse("postgres://a:b@h/db?schema=s&connections=7&max-ttl=2s&heartbeat=20ms&timeout=3s&encoding=dotnet&sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	var cfg Config
	rest, err := readURL(u, &cfg)
	want := Config{Schema: "s", Connections: 7, MaxTTL: 2 * time.Second, Heartbeat: 20 * time.Millisecond, Timeout: 3 * time.Second, Encoding: DotNet}
	if err != nil || cfg != want || rest.String() != "postgres://a:b@h/db?sslmode=disable" {
		t.Errorf("%+v, %v, %v", cfg, rest, err)
	}
	for _, bad := range []string{"schema=A", "connections=x", "connections=-1", "max-ttl=1", "encoding=rot13", "heartbeat=0s&heartbeat=0s", "timeout=1ns"} {
		if _, err := readURL(&url.URL{Scheme: "postgres", RawQuery: bad}, new(Config)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

func TestRegistered(t *testing.T) {
	for names, want := range map[string]string{"mysql,postgres": "postgres", "pgx,postgres": "pgx", "pgx": "pgx", "mysql": ""} {
		got, err := registered(strings.Split(names, ","))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("of %s: %q, %v", names, got, err)
		}
	}
}

// TestKeys: what a name is on the wire must never change. Those of .NET are from the tests of
// DistributedLock and from its description.
func TestKeys(t *testing.T) {
	hashed, dotNet := Config{}.withDefaults(), Config{Encoding: DotNet}.withDefaults()
	if k := hashed.keysOf("invoice:2026"); k != (keys{lock: key{n: 8722019785435718995}, window: 2007408779199361024}) {
		t.Errorf("the key of a name has changed: %+v", k)
	}
	if hashed.keysOf("a").lock == (Config{Schema: "other"}).keysOf("a").lock {
		t.Error("schemas share keys")
	}
	for name, want := range map[string]key{
		"":                      {n: 1<<63 - 1, pair: true},
		"A":                     {n: 65<<57 - 1<<63 - 1<<63 | (1<<56 - 1), pair: true},
		"0000000000000001":      {n: 1},
		"00000003,ffffffff":     {n: 3<<32 | 0xffffffff, pair: true},
		"ffffffffffffffff":      {n: -1},
		strings.Repeat("漢", 18): {n: -5707277204051710361},
	} {
		if got := dotNet.keysOf(name).lock; got != want {
			t.Errorf("%q: %+v, want %+v", name, got, want)
		}
	}
}

// TestWithoutSecrets: what drivers say of a URL that they cannot read is shown without its password.
func TestWithoutSecrets(t *testing.T) {
	for _, text := range []string{
		"cannot parse `postgres://app:topsecret@h:x/db`: failed", `dial "postgres://app:topsecret@h/db" failed`,
		"bad DSN host=h password=topsecret dbname=x", "postgres://app:top%zzsecret@h",
	} {
		if got := withoutSecrets(errors.New(text)).Error(); strings.Contains(got, "secret") {
			t.Errorf("%q becomes %q", text, got)
		}
	}
}

// TestGateOrder: steps that wait for gates come last, in the order of their gates.
func TestGateOrder(t *testing.T) {
	share := func(w int64) step { return step{op: opShare, window: w} }
	for _, c := range []struct {
		a, b step
		want int
	}{
		{share(1), share(2), -1}, {share(2), share(1), 1}, {share(1), share(1), 0},
		{step{op: opLock}, share(-5), -1}, {share(-5), step{op: opUnlock}, 1}, {step{op: opLock}, step{op: opUnlock}, 0},
		{step{op: opUpgradeable, window: 3}, share(2), 1},
	} {
		if got := compareGates(c.a, c.b); got != c.want {
			t.Errorf("%+v, %+v: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
