package mysqllock_test

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/mysqllock"
)

// unreachable is a driver whose server is never there.
type unreachable struct{}

var errUnreachable = errors.New("nobody is there")

func (unreachable) Connect(context.Context) (sqldriver.Conn, error) { return nil, errUnreachable }
func (unreachable) Driver() sqldriver.Driver                        { return nil }

func kindOf(t *testing.T, err error, want driver.Kind) *driver.Error {
	t.Helper()
	var d *driver.Error
	if !errors.As(err, &d) || d.Kind != want || d.Outcome != driver.NotApplied {
		t.Fatalf("error is %v, want kind %v, not applied", err, want)
	}
	return d
}

// TestBadConfig: every violation is named, before anything is sent.
func TestBadConfig(t *testing.T) {
	db := sql.OpenDB(unreachable{})
	defer db.Close()
	for name, c := range map[string]struct {
		cfg  mysqllock.Config
		says []string
	}{
		"prefix": {mysqllock.Config{Prefix: "a\n", RawNames: true}, []string{"Prefix", "RawNames"}},
		"long":   {mysqllock.Config{Prefix: strings.Repeat("x", 129)}, []string{"Prefix has 129 bytes"}},
		"table":  {mysqllock.Config{Table: "a`; DROP"}, []string{"Table is"}},
		"tables": {mysqllock.Config{Table: "a.b.c"}, []string{"Table is"}},
		"many": {mysqllock.Config{Connections: -1, Timeout: 1, MaxTTL: time.Hour * 25},
			[]string{"Connections is -1", "Timeout is 1ns", "MaxTTL is 25h"}},
		"more":  {mysqllock.Config{Connections: 65}, []string{"Connections is 65: it must be 1 to 64"}},
		"short": {mysqllock.Config{MaxTTL: time.Millisecond}, []string{"MaxTTL is 1ms: it must be 1s to 24h"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := mysqllock.New(t.Context(), db, c.cfg)
			d := kindOf(t, err, driver.Invalid)
			for _, text := range c.says {
				if !strings.Contains(d.Error(), text) {
					t.Errorf("%q does not say %q", d, text)
				}
			}
		})
	}
	if _, err := mysqllock.New(t.Context(), nil, mysqllock.Config{}); err != nil {
		kindOf(t, err, driver.Invalid)
	} else {
		t.Error("an engine on no DB")
	}
	if _, err := mysqllock.New(t.Context(), db, mysqllock.Config{}); !errors.Is(err, errUnreachable) {
		t.Errorf("on a server that is not there: %v", err)
	}
	db.SetMaxOpenConns(4)
	_, err := mysqllock.New(t.Context(), db, mysqllock.Config{})
	if d := kindOf(t, err, driver.Invalid); !strings.Contains(d.Error(), "SetMaxOpenConns") {
		t.Errorf("on a DB with four connections: %v", err)
	}
}

// TestBadURL: what is wrong with a URL is named, and passwords are not.
func TestBadURL(t *testing.T) {
	const secret = "pa55"
	for url, says := range map[string]string{
		"mysql://u:" + secret + "@h:3306":                                "names no schema",
		"mysql://u:" + secret + "@h:99999/app":                           "not 1 to 65535",
		"mysql://u:" + secret + "@h/app?connections=0x":                  "whole number",
		"mysql://u:" + secret + "@h/app?connections=100":                 "Connections is 100",
		"mysql://u:" + secret + "@h/app?bogus=1":                         "not known",
		"mysql://u:" + secret + "@h/app?timeout=soon":                    "write a duration",
		"mysql://u:" + secret + "@h/app/b":                               "not of the form",
		"mysql://u%3Ax:" + secret + "@h/app":                             "colon",
		"mysql://u:" + secret + "@h/app?table=a%20b":                     "Table is",
		"mysql://u:" + secret + "#1@h/app":                               "",
		"mysql://u:" + secret + "@h/app?prefix=x&prefix=y":               "once",
		"mysql://u:" + secret + "@h/app?max-ttl=1ms&single-node=perhaps": "on or off",
	} {
		_, err := holdfast.Open(t.Context(), url, holdfast.Config{})
		if !errors.Is(err, holdfast.ErrInvalid) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v, want it to say %q", strings.ReplaceAll(url, secret, "***"), err, says)
		}
	}
	_, err := holdfast.Open(t.Context(), "mysql://u:"+secret+"@h/app", holdfast.Config{})
	if !errors.Is(err, holdfast.ErrUnsupported) || !strings.Contains(err.Error(), "github.com/go-sql-driver/mysql") {
		t.Errorf("without a driver: %v", err)
	}
}

// TestKeys: keys that GET_LOCK might confuse are not those of different names.
func TestKeys(t *testing.T) {
	for name, want := range map[string]string{
		"holdfast:app:invoice-2026": "", "a": "", strings.Repeat("x", 64): "",
		"A": "hashed", "é": "hashed", "a ": "hashed", "it's": "hashed", "a\\b": "hashed", "\"": "hashed",
		strings.Repeat("x", 65): "hashed", "holdfast#x": "hashed",
	} {
		key := mysqllock.KeyOf(name)
		if plain := key == name; plain != (want == "") {
			t.Errorf("the key of %q is %q", name, key)
		}
		if len(key) > 64 || key != strings.ToLower(key) || strings.ContainsAny(key, "'\"\\` ") {
			t.Errorf("the key of %q is %q", name, key)
		}
	}
	if mysqllock.KeyOf("A") == mysqllock.KeyOf("a") || mysqllock.KeyOf(mysqllock.KeyOf("A")) == mysqllock.KeyOf("A") {
		t.Error("different names have one key")
	}
	// Others compute keys as documented.
	if key, want := mysqllock.KeyOf("A"), "holdfast#nefzkmijmcv2f6cqejnai76mdvzhzqzk5"; key != want {
		t.Errorf("the key of A is %q, want %q", key, want)
	}
}

func TestVersions(t *testing.T) {
	for version, ok := range map[string]bool{
		"5.7.0": true, "8.0.36": true, "9.1.0-commercial": true, "10.11.19-MariaDB-0+deb12u1": true,
		"5.5.5-10.5.2-MariaDB": true, "10.0.2-MariaDB": true, "11.4.1-MariaDB-log": true,
		"5.6.51": false, "5.5.68-MariaDB": false, "10.0.1-MariaDB": false, "garbled": false, "": false,
	} {
		err := mysqllock.CheckVersion(version)
		if ok != (err == nil) {
			t.Errorf("%q: %v", version, err)
		}
		if err != nil {
			kindOf(t, err, driver.Unsupported)
		}
	}
}

func TestNodes(t *testing.T) {
	const group, single = "group_replication_group_name", "group_replication_single_primary_mode"
	for _, c := range []struct {
		v       map[string]string
		refused bool
	}{
		{nil, false},
		{map[string]string{"wsrep_on": "OFF"}, false},
		{map[string]string{"wsrep_on": "ON"}, true},
		{map[string]string{group: "", single: "OFF"}, false},
		{map[string]string{group: "aaaa", single: "ON"}, false},
		{map[string]string{group: "aaaa", single: "OFF"}, true},
	} {
		if err := mysqllock.CheckNode(c.v, false); c.refused != (err != nil) {
			t.Errorf("%v: %v", c.v, err)
		} else if err != nil && !strings.Contains(err.Error(), "single-node=on") {
			t.Errorf("%v: %v does not say what to do", c.v, err)
		}
		if err := mysqllock.CheckNode(c.v, true); err != nil {
			t.Errorf("%v with SingleNode: %v", c.v, err)
		}
	}
}
