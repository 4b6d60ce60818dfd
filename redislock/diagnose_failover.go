package redislock

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

// takeover is about how long it takes, once a master is found to be down, until another one
// serves: the election, the promotion, and clients that look for it.
const takeover = 4 * time.Second

// survives reports whether holders outlive a failover. A lease that was renewed when a third
// of its TTL had passed, or was about to be, has two thirds left when the master dies. In that
// time its silence has to be noticed, another one has to take over, and the new one has to
// have confirmed a renewal, which it does when its predecessor must have fallen silent.
func survives(ttl, downAfter, silence time.Duration) bool {
	return ttl*2/3 > downAfter+takeover+silence
}

// shortestTTL is the shortest TTL, in whole seconds, with which holders outlive a failover.
func shortestTTL(downAfter, silence time.Duration) time.Duration {
	return ((downAfter+takeover+silence)*3/2 + time.Second).Truncate(time.Second)
}

// failover reports whether holders outlive a failover that begins after a master was silent
// for downAfter, which the setting of that name says.
func (x *exam) failover(setting string, downAfter time.Duration) {
	c := x.e.cfg
	if c.Safety == SingleProcess {
		return
	}
	least := shortestTTL(downAfter, c.silence())
	sum := fmt.Sprintf("%s %v, about %v to take over", setting, downAfter, takeover)
	if c.silence() > 0 {
		sum += fmt.Sprintf(", %v until the predecessor must be silent", c.silence())
	}
	switch {
	case survives(x.ttl, downAfter, c.silence()):
		x.find(driver.LevelOK, "failover", "", "leases of %v outlive it: two thirds of that are more than %s", x.ttl, sum)
	case least <= c.MaxTTL:
		x.find(driver.LevelWarning, "failover", fmt.Sprintf("use a TTL of %v or more (ttl=%v in the URL), or lower %s", least, least, setting),
			"leases of %v may end in it, though their holders live: two thirds of that are less than %s", x.ttl, sum)
	default:
		x.find(driver.LevelWarning, "failover", fmt.Sprintf("lower %s, or raise MaxTTL (max-ttl in the URL) for all clients and use a TTL of %v or more", setting, least),
			"leases may end in it, though their holders live: two thirds of MaxTTL, %v, are less than %s", c.MaxTTL, sum)
	}
}

// newcomers reports how long who holds nothing waits after a failover.
func (x *exam) newcomers() {
	c := x.e.cfg
	if c.Safety == SingleProcess {
		return
	}
	x.fact("grace", "%v after a failover or a restart until new locks are granted", about(c.grace()))
	if c.silence() > 0 {
		x.fact("silence", "%v of that until leases are confirmed", c.silence())
	}
}

// nodeTimeout is to a Cluster what down-after-milliseconds is to Sentinel.
func (x *exam) nodeTimeout(settings map[string]string) {
	ms, err := strconv.Atoi(settings["cluster-node-timeout"])
	if err == nil && x.e.cluster != nil {
		x.failover("cluster-node-timeout", time.Duration(ms)*time.Millisecond)
	}
}

// sentinels asks each Sentinel of the URL what it watches, and how.
func (x *exam) sentinels(ctx context.Context) {
	o := x.e.opened
	if o == nil {
		x.fact("topology", "a master that Sentinels name")
		x.find(driver.LevelNote, "sentinels", "open the engine by a URL", "the client does not say which they are, so they were not asked")
		return
	}
	var views []map[string]string
	for _, p := range o.probes(ctx) {
		if v := x.sentinelAt(p); v != nil {
			views = append(views, v)
		}
	}
	if len(views) == 0 {
		return
	}
	x.watched(views)
}

// sentinelAt reports on one Sentinel and returns what it says of the master, if anything.
func (x *exam) sentinelAt(p probe) map[string]string {
	subject := "sentinel " + p.addr
	switch {
	case p.server == nil:
		x.find(driver.LevelWarning, subject, "see whether it runs", "it does not answer: %v", p.err)
	case p.server.mode == "sentinel" && p.err != nil, p.server.mode == "":
		x.find(driver.LevelWarning, subject, "give sentinel-user and sentinel-password in the URL", "it does not say what it watches: %v", p.err)
	case p.server.mode != "sentinel":
		x.find(driver.LevelWarning, subject, "take it out of the URL", "it is no Sentinel")
	default:
		for _, m := range p.watched {
			if m["name"] == x.e.opened.master {
				return m
			}
		}
		x.find(driver.LevelWarning, subject, "have it watch "+x.e.opened.master, "it does not watch the master")
	}
	return nil
}

// watched reports on what the Sentinels say of the master.
func (x *exam) watched(views []map[string]string) {
	number := func(v map[string]string, key string) int { n, _ := strconv.Atoi(v[key]); return n }
	master, down, known, replicas, quorum := "", 0, 0, 0, 0
	for _, v := range views {
		at := net.JoinHostPort(v["ip"], v["port"])
		if master != "" && at != master {
			x.find(driver.LevelWarning, "sentinels", "wait, and look again", "they name %s and %s: a failover is under way, or they do not see each other", master, at)
		}
		master = at
		down = max(down, number(v, "down-after-milliseconds"))
		known = max(known, 1+number(v, "num-other-sentinels"))
		replicas = max(replicas, number(v, "num-slaves"))
		quorum = max(quorum, number(v, "quorum"))
		if strings.Contains(v["flags"], "down") {
			x.find(driver.LevelWarning, "sentinels", "see whether the master runs", "the master is %s to one of them", v["flags"])
		}
	}
	x.fact("topology", "%d Sentinels, quorum %d, master %s with %d replicas", known, quorum, master, replicas)
	switch {
	case known < 3:
		x.find(driver.LevelWarning, "sentinels", "run three or more, on machines of their own", "there are %d: when one is lost no master is replaced", known)
	case quorum <= known/2:
		x.find(driver.LevelNote, "sentinels", fmt.Sprintf("a quorum of %d asks for a majority", known/2+1), "%d of %d call a master down", quorum, known)
	default:
		x.find(driver.LevelOK, "sentinels", "", "%d of %d have to agree that a master is down", quorum, known)
	}
	// A replica that is down counts as well: it may come back on the wrong side.
	if o, bad := x.e.sizeObjection(replicas); bad {
		x.find(driver.LevelProblem, o.subject, o.remedy, "%s", o.text)
	}
	x.failover("down-after-milliseconds", time.Duration(down)*time.Millisecond)
}
