package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Permissions returns the commands that give a role what this engine needs and no more, one a
// line, for etcdctl.
func (e *Engine) Permissions(role string) string {
	key := e.cfg.Prefix
	option := " --prefix=true"
	if key == "" {
		key, option = "\x00", " --from-key=true"
	}
	return "etcdctl role add " + role + "\n" +
		"etcdctl role grant-permission" + option + " " + role + " readwrite " + strconv.Quote(key)
}

// exam is one call of Diagnose.
type exam struct {
	driver.Diagnosis
	e   *Engine
	ttl time.Duration
}

// Diagnose implements driver.Diagnoser. It writes a key of its own, on a lease of its own, and
// deletes both.
func (e *Engine) Diagnose(ctx context.Context, ttl time.Duration) (driver.Diagnosis, error) {
	if err := e.enter(ctx); err != nil {
		return driver.Diagnosis{}, err
	}
	defer e.leave()
	x := &exam{e: e, ttl: ttl}
	if err := x.trial(ctx); err != nil {
		return driver.Diagnosis{}, e.refusal(ctx, err)
	}
	x.members(ctx)
	x.alarms(ctx)
	x.Find(driver.LevelNote, "safety", "", "%s", e.caps.Safety)
	return x.Diagnosis, nil
}

// trial does what locks do. An error means that there is nothing to say at all.
func (x *exam) trial(ctx context.Context) error {
	bounded, cancel := x.e.bound(ctx)
	defer cancel()
	began := time.Now()
	lease, err := x.e.client.Grant(bounded, max(2, secondsOf(x.ttl)))
	if err != nil {
		return err
	}
	defer func() { _, _ = x.e.client.Revoke(bounded, lease.ID) }()
	key := x.e.cfg.Prefix + trialKeys + strconv.FormatInt(int64(lease.ID), 16)
	_, err = x.e.client.Txn(bounded).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, "", clientv3.WithLease(lease.ID))).
		Else(clientv3.OpGet(key)).Commit()
	if err == nil {
		_, err = x.e.client.KeepAliveOnce(bounded, lease.ID)
	}
	took := time.Since(began) / 3
	switch {
	case errors.Is(err, rpctypes.ErrPermissionDenied):
		x.Find(driver.LevelProblem, "permissions", strings.ReplaceAll(x.e.Permissions("locks"), "\n", "; "),
			"the user may not read and write keys that begin with %q: no lock can be had", x.e.cfg.Prefix)
		return nil
	case err != nil:
		x.Find(driver.LevelProblem, "commands", verdictOn(err).advice, "a trial of what locks need failed: %v", err)
		return nil
	}
	x.Find(driver.LevelOK, "permissions", "", "leases and keys that begin with %q can be written", x.e.cfg.Prefix)
	x.Fact("latency", "%v", took.Round(10*time.Microsecond))
	level, remedy := driver.LevelOK, ""
	if took > x.ttl/20 {
		level, remedy = driver.LevelWarning, "use a longer TTL, or faster disks and network"
	}
	x.Find(level, "latency", remedy, "a round trip takes %v, of a TTL of %v", took.Round(10*time.Microsecond), x.ttl)
	if lease.TTL > secondsOf(x.ttl)*2 {
		x.Find(driver.LevelWarning, "lease", "use TTLs of that length, or lower --election-timeout",
			"the cluster grants no lease of less than %d s: dead holders keep their locks for that long", lease.TTL)
	}
	return nil
}

// members looks at each member that the cluster has.
func (x *exam) members(ctx context.Context) {
	bounded, cancel := x.e.bound(ctx)
	defer cancel()
	list, err := x.e.client.MemberList(bounded)
	if err != nil {
		x.Find(driver.LevelNote, "members", "", "they cannot be listed: %v", err)
		return
	}
	voting, answering := 0, 0
	for _, m := range list.Members {
		if !m.IsLearner {
			voting++
		}
		if x.member(ctx, m) && !m.IsLearner {
			answering++
		}
	}
	x.Fact("members", "%d, of which %d vote and %d of those answer", len(list.Members), voting, answering)
	spare := (voting-1)/2 - (voting - answering)
	switch {
	case voting == 1:
		x.Find(driver.LevelWarning, "members", "run three members, or five", "there is one: while it is down nobody gets a lock, and holders lose theirs")
	case spare < 1:
		x.Find(driver.LevelWarning, "members", "bring back the members that are down",
			"%d of %d answer: one more that fails stops all locks", answering, voting)
	case voting%2 == 0:
		x.Find(driver.LevelNote, "members", "run an odd number", "%d members stand no more failures than %d", voting, voting-1)
	default:
		x.Find(driver.LevelOK, "members", "", "%d more may fail", spare)
	}
}

// member looks at one and reports whether it answers.
func (x *exam) member(ctx context.Context, m *pb.Member) bool {
	name := m.Name
	if name == "" {
		name = fmt.Sprintf("%x", m.ID)
	}
	for _, endpoint := range m.ClientURLs {
		bounded, cancel := x.e.bound(ctx)
		s, err := x.e.client.Status(bounded, endpoint)
		cancel()
		if err != nil {
			continue
		}
		role := "follower"
		switch {
		case s.IsLearner:
			role = "learner"
		case s.Leader == s.Header.MemberId:
			role = "leader"
		}
		x.Fact("member "+name, "etcd %s, %s, %d MB", s.Version, role, s.DbSize>>20)
		if s.Leader == 0 {
			x.Find(driver.LevelProblem, "leader", "see whether the members reach each other", "member %s knows no leader", name)
		}
		x.version(name, s.Version)
		return true
	}
	x.Find(driver.LevelNote, "member "+name, "see whether it runs", "it does not answer at %s", instanceOf(m.ClientURLs))
	return false
}

// version reports what this release of etcd is known for.
func (x *exam) version(member, version string) {
	var major, minor int
	if n, _ := fmt.Sscanf(version, "%d.%d", &major, &minor); n < 2 {
		return
	}
	switch {
	case major < 3 || major == 3 && minor < 4:
		x.Find(driver.LevelProblem, "version", "use etcd 3.5 or later", "member %s runs etcd %s: this engine needs 3.4", member, version)
	case major == 3 && minor == 4:
		x.Find(driver.LevelNote, "version", "use etcd 3.5 or later", "member %s runs etcd %s, which gets no more fixes", member, version)
	}
}

// alarms reports what members have raised.
func (x *exam) alarms(ctx context.Context) {
	bounded, cancel := x.e.bound(ctx)
	defer cancel()
	resp, err := x.e.client.AlarmList(bounded)
	if err != nil {
		x.Find(driver.LevelNote, "alarms", "ask as root", "they may not be asked for: %v", err)
		return
	}
	kinds := []string{}
	for _, a := range resp.Alarms {
		if kind := a.Alarm.String(); !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) == 0 {
		x.Find(driver.LevelOK, "alarms", "", "none")
		return
	}
	x.Find(driver.LevelProblem, "alarms", "see etcdctl alarm list: with NOSPACE compact, defragment and disarm; with CORRUPT replace the member",
		"the cluster has raised %s", strings.Join(kinds, " and "))
}
