package zklock

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// Diagnose implements driver.Diagnoser. It asks every server of the URL who it is, tries out
// permissions with a lock on a name of its own, and measures how long a write takes.
func (e *Engine) Diagnose(ctx context.Context, ttl time.Duration) (driver.Diagnosis, error) {
	var d driver.Diagnosis
	if err := e.enter(ctx); err != nil {
		return d, err
	}
	defer e.leave()
	e.diagnoseServers(ctx, &d)
	e.diagnoseSession(&d, ttl)
	e.diagnoseNodes(ctx, &d, ttl)
	return d, nil
}

func (e *Engine) diagnoseServers(ctx context.Context, d *driver.Diagnosis) {
	addrs := strings.Split(e.caps.Instance, ",")
	modes := make(map[string]int)
	for _, addr := range addrs {
		version, mode, err := e.ask(ctx, addr)
		if err != nil {
			d.Find(driver.LevelWarning, addr, "start it, or allow srvr in its 4lw.commands.whitelist", "does not say who it is: %v", err)
			continue
		}
		d.Fact(addr, "ZooKeeper %s, %s", version, mode)
		modes[mode]++
		if mode == "standalone" {
			d.Find(driver.LevelNote, "ensemble", "run three servers or five", "%s is on its own: locks stop while it is down, and are lost with its disk", addr)
		}
	}
	members := modes["leader"] + modes["follower"]
	switch {
	case members == 0:
	case modes["leader"] == 0:
		d.Find(driver.LevelNote, "ensemble", "name all servers in the URL", "none of the servers of the URL leads")
	case modes["leader"] > 1:
		d.Find(driver.LevelProblem, "ensemble", "name the servers of one ensemble", "%d of the servers lead: the URL names several ensembles, or an election is under way", modes["leader"])
	case len(addrs) == 1:
		d.Find(driver.LevelWarning, "ensemble", "name all servers in the URL", "only one server is named: without it this client has none")
	case members%2 == 0:
		d.Find(driver.LevelNote, "ensemble", "use an odd number of servers", "%d servers survive the loss of no more than %d do", members, members-1)
	default:
		d.Find(driver.LevelOK, "ensemble", "", "%d servers, of which %d may fail", members, (members-1)/2)
	}
}

// ask sends a server the word srvr and reads its version and mode from the answer.
func (e *Engine) ask(ctx context.Context, addr string) (version, mode string, err error) {
	if err := ctx.Err(); err != nil {
		return "", "", err
	}
	c, err := e.cfg.reach(addr)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(e.cfg.Timeout))
	if _, err := io.WriteString(c, "srvr"); err != nil {
		return "", "", err
	}
	answer, err := io.ReadAll(io.LimitReader(c, 4096))
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(string(answer)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "Zookeeper version":
			version, _, _ = strings.Cut(value, ",")
		case "Mode":
			mode = value
		}
	}
	if mode == "" {
		return "", "", fmt.Errorf("its answer is %.80q", answer)
	}
	return version, mode, nil
}

func (e *Engine) diagnoseSession(d *driver.Diagnosis, ttl time.Duration) {
	session := e.caps.Resolution
	d.Fact("session", "%v, for leases of up to %v", session, e.caps.MaxTTL)
	switch {
	case ttl > e.caps.MaxTTL:
		d.Find(driver.LevelProblem, "session", "raise session-timeout, and the servers' maxSessionTimeout",
			"a session of %v does not carry leases of %v", session, ttl)
	case session < e.cfg.SessionTimeout:
		d.Find(driver.LevelNote, "session", "raise the servers' maxSessionTimeout if leases should last longer",
			"%v were asked for and %v granted", e.cfg.SessionTimeout, session)
	default:
		d.Find(driver.LevelOK, "session", "", "the locks of a process that died are free after %v and up to a tick of the servers", session)
	}
}

// diagnoseNodes takes a lock of its own and gives it back.
func (e *Engine) diagnoseNodes(ctx context.Context, d *driver.Diagnosis, ttl time.Duration) {
	name := "holdfast-doctor-" + rand.Text()
	req := driver.Request{Name: name, Mode: driver.Exclusive, Owner: "doctor", TTL: min(max(ttl, MinTTL), e.caps.MaxTTL), Span: 1}
	rand.Read(req.Token[:])
	g, err := e.Acquire(ctx, req)
	if err != nil {
		d.Find(driver.LevelProblem, "permissions", "", "a lock could not be taken: %v", err)
		return
	}
	sent := e.clock.Now()
	err = errors.Join(e.Renew(ctx, []driver.Claim{req.Claim(g)})...)
	took := e.clock.Now().Sub(sent)
	err = errors.Join(err, e.Release(ctx, req.Claim(g)))
	if err == nil {
		err = e.remove(ctx, []string{e.path(name)})
	}
	switch {
	case err != nil:
		d.Find(driver.LevelProblem, "permissions", "", "a lock could not be renewed and released: %v", err)
	case took > ttl/10:
		d.Find(driver.LevelWarning, "latency", "look for slow disks (fsync) and networks", "a write took %v, a large part of the TTL of %v", took.Round(time.Millisecond), ttl)
	default:
		d.Fact("write", "%v", took.Round(10*time.Microsecond))
		d.Find(driver.LevelOK, "permissions", "", "locks can be taken, renewed and released below %s", e.cfg.Root)
	}
	if stat, err := e.statOf(ctx, "/zookeeper/quota"); err == nil && stat != nil && stat.NumChildren > 0 {
		d.Find(driver.LevelNote, "quota", "see that none is on "+e.cfg.Root, "the ensemble has quotas")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.persistent {
		d.Find(driver.LevelWarning, "containers", "use ZooKeeper 3.5 or later", "the servers have no container nodes: every name ever locked leaves a node")
	}
}
