package mysqllock

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// Diagnose implements driver.Diagnoser. It takes no lock and writes nothing; that the table can
// be written was seen when the engine was opened.
func (e *Engine) Diagnose(ctx context.Context, ttl time.Duration) (driver.Diagnosis, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Diagnosis{}, err
	}
	defer e.leave()
	done := make(chan driver.Diagnosis, 1)
	err := e.onMain(ctx, func(s *session) error {
		var x driver.Diagnosis
		x.Fact("locks", "names begin with %q, fences and holders are in %s", *e.prefix.Load(), e.cfg.Table)
		if err := s.examine(&x); err != nil {
			return err
		}
		if err := s.measure(&x, ttl); err != nil {
			return err
		}
		done <- x
		return nil
	})
	if err != nil {
		return driver.Diagnosis{}, err
	}
	x := <-done
	if lease := wholeSeconds(ttl); time.Duration(lease)*time.Second != ttl {
		x.Find(driver.LevelNote, "TTL", "choose whole seconds", "the server counts in seconds: it frees what a process that hangs holds after %d s, not %v", lease, ttl)
	}
	x.Find(driver.LevelOK, "safety", "", "%s", e.caps.Safety)
	return x, nil
}

// examine looks at the server's settings.
func (s *session) examine(x *driver.Diagnosis) error {
	ctx, cancel := context.WithTimeout(s.e.life, s.e.cfg.Timeout)
	defer cancel()
	v, err := s.variables(ctx, "version", "version_comment", "hostname", "port", "wsrep_on", "group_replication_group_name",
		"group_replication_single_primary_mode", "innodb_flush_log_at_trx_commit", "sync_binlog", "log_bin", "binlog_format",
		"read_only", "max_connections", "thread_handling")
	if err != nil {
		return err
	}
	x.Fact("server", "%s (%s) at %s:%s", v["version"], v["version_comment"], v["hostname"], v["port"])
	switch {
	case on(v["wsrep_on"]):
		x.Find(driver.LevelWarning, "cluster", "see to it that all clients talk to the same node", "a node of a Galera cluster: the others know nothing of its locks")
	case v["group_replication_group_name"] != "" && !on(v["group_replication_single_primary_mode"]):
		x.Find(driver.LevelWarning, "cluster", "see to it that all clients talk to the same primary", "one of several primaries of a group: the others know nothing of its locks")
	case v["group_replication_group_name"] != "":
		x.Find(driver.LevelNote, "cluster", "", "the primary of a group: its locks end when another takes over")
	default:
		x.Find(driver.LevelOK, "cluster", "", "no node of a cluster in which several take writes")
	}
	if on(v["read_only"]) {
		x.Find(driver.LevelWarning, "read-only", "connect to the primary", "the server is read-only, so it is a replica or about to become one: this user may write all the same, and its locks exclude nobody on the primary")
	}
	if v["innodb_flush_log_at_trx_commit"] == "1" {
		x.Find(driver.LevelOK, "durability", "", "every fence is on disk before it is given out")
	} else {
		x.Find(driver.LevelNote, "durability", "innodb_flush_log_at_trx_commit=1 keeps every fence",
			"innodb_flush_log_at_trx_commit is %s: after a crash of the machine, fences go on from the server's clock", v["innodb_flush_log_at_trx_commit"])
	}
	x.Fact("binary log", "log_bin %s, binlog_format %s, sync_binlog %s", v["log_bin"], v["binlog_format"], v["sync_binlog"])
	if on(v["log_bin"]) && strings.EqualFold(v["binlog_format"], "STATEMENT") {
		x.Find(driver.LevelProblem, "binary log", "set binlog_format to ROW or MIXED", "with binlog_format STATEMENT the server refuses to write fences")
	}
	if n, err := strconv.Atoi(v["max_connections"]); err == nil {
		x.Fact("connections", "%d of the server's %d for each process", s.e.cfg.Connections, n)
	}
	return nil
}

func on(value string) bool { return strings.EqualFold(value, "ON") || value == "1" }

// measure times statements and compares clocks.
func (s *session) measure(x *driver.Diagnosis, ttl time.Duration) error {
	const samples = 9
	var times []time.Duration
	for range samples {
		began := time.Now()
		if err := s.check(); err != nil {
			return err
		}
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	median := times[samples/2].Round(10 * time.Microsecond)
	x.Fact("latency", "%v, the median of %d", median, samples)
	if median > ttl/20 {
		x.Find(driver.LevelWarning, "latency", "choose a longer TTL, or look for what slows the server down", "a statement takes %v, much of a TTL of %v", median, ttl)
	} else {
		x.Find(driver.LevelOK, "latency", "", "a statement takes %v", median)
	}
	var micros int64
	sent := time.Now()
	if err := s.query("SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6))*1000000 AS SIGNED)", &micros); err != nil {
		return err
	}
	ahead := sent.Add(time.Since(sent) / 2).Sub(time.UnixMicro(micros))
	x.Fact("clock", "this machine's is %v ahead of the server's", ahead.Round(time.Millisecond))
	if ahead.Abs() > 10*time.Second {
		x.Find(driver.LevelNote, "clock", "synchronize the clocks", "this machine and the server are %v apart: should the table be lost, fences go on from the server's clock", ahead.Abs().Round(time.Second))
	} else {
		x.Find(driver.LevelOK, "clock", "", "this machine and the server agree")
	}
	return nil
}
