package redislock

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// toMaster is no advice to those who have Sentinel or a Cluster find the master.
const toMaster = "connect to the master, or find it through Sentinel (redis+sentinel://)"

// advice is what to do about errors that servers answer with, by what they contain.
var advice = []struct{ text, remedy string }{
	{"OOM ", "give the server more memory (maxmemory), or locks a server of their own"},
	{"READONLY ", toMaster},
	{"MASTERDOWN ", toMaster},
	{"LOADING ", "the server has just started: try again when it has read its data"},
	{"NOREPLICAS ", "see that replicas are connected, or lower min-replicas-to-write"},
	{"MISCONF ", "see that the server can write to its disk"},
	{"BUSY ", "find the script that runs for so long; SCRIPT KILL stops it"},
	{"NOAUTH ", "the server wants a password: put user:password@ before the host, or set Username and Password of the client"},
	{"unauthenticated multibulk", "the server wants a password: put user:password@ before the host, or set Username and Password of the client"},
	{"WRONGPASS ", "check user and password of the URL or client"},
	{"max number of clients", "raise maxclients of the server, or make the pools of its clients smaller"},
}

// advised adds to the error of a server or connection what to do about it.
func (e *Engine) advised(err error) error {
	text := err.Error()
	remedy := ""
	switch {
	case isPermission(text):
		remedy = "the user needs: " + e.ACL("<user>")
	case isHandshake(err):
		remedy = "check TLS on both sides: the client's authorities and certificate, the server's certificate, and whether this port speaks TLS at all"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		remedy = "the connection was closed: has the server restarted, does this port speak TLS (rediss://), are there more clients than its maxclients?"
	}
	for _, a := range advice {
		if strings.Contains(text, a.text) {
			remedy = a.remedy
			break
		}
	}
	if remedy == toMaster && e.findsMaster() {
		remedy = ""
	}
	if remedy == "" {
		return err
	}
	return fmt.Errorf("%w; %s", err, remedy)
}

// isHandshake reports whether no connection came about because client and server did not
// agree on TLS. Nothing was sent then: even where it is the first reply that says that the
// server wants another certificate, it has not read what the client sent meanwhile.
func isHandshake(err error) bool {
	var verify *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	var host x509.HostnameError
	var op *net.OpError
	switch {
	case errors.As(err, &verify), errors.As(err, &header), errors.As(err, &host):
		return true
	case errors.As(err, &op) && op.Op == "remote error":
		return strings.Contains(err.Error(), "certificate") || strings.Contains(err.Error(), "handshake")
	}
	return false
}

// findsMaster reports whether the client finds out by itself where the master is.
func (e *Engine) findsMaster() bool {
	c, ok := e.client.(*redis.Client)
	return !ok || c.Options().Addr == sentinelAddr
}
