package main

import (
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

var onZooKeeper = &engine{
	name: "zookeeper", title: "ZooKeeper", dependsOn: "two of three ZooKeeper servers",
	start: func(l *testserver.Lab, _ *database) *backend {
		e := testserver.ZooKeepers(l, 3, testserver.ZooKeeperOptions{})
		return &backend{
			url: "zk://" + strings.Join(e.Addrs(), ",") + "?session-timeout=6s", version: zooKeeperVersion(e.Servers[0]),
			breakIt: func(struck func()) string {
				leader := e.Leader()
				struck()
				e.Servers[leader].Kill()
				return "leader of three servers killed"
			},
		}
	},
}

var zooKeeperSays = regexp.MustCompile(`Zookeeper version: ([\d.]+)`)

func zooKeeperVersion(s *testserver.ZooKeeperServer) string {
	text, err := s.Word("srvr")
	if found := zooKeeperSays.FindStringSubmatch(text); err == nil && found != nil {
		return "ZooKeeper " + found[1]
	}
	return ""
}

var onEtcd = &engine{
	name: "etcd", title: "etcd", dependsOn: "two of three etcd members",
	start: func(l *testserver.Lab, _ *database) *backend {
		c := testserver.Etcd(l, testserver.EtcdOptions{Members: 3})
		return &backend{
			url: "etcd://" + strings.Join(c.Addrs(), ",") + leases, version: etcdVersion(c.Addrs()[0]),
			breakIt: func(struck func()) string {
				leader := c.Leader()
				struck()
				leader.Kill()
				return "leader of three members killed"
			},
		}
	},
}

func etcdVersion(addr string) string {
	ctx, cancel := context.WithTimeout(context.Background(), initTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/version", nil)
	if err != nil {
		return ""
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	var v struct{ Etcdserver string }
	if json.NewDecoder(resp.Body).Decode(&v) != nil {
		return ""
	}
	return "etcd " + v.Etcdserver
}
