package zklock

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
)

// reach makes a connection to a server, host:port, within twice c.Timeout.
func (c *Config) reach(server string) (net.Conn, error) {
	plain, err := c.Dialer("tcp", server, c.Timeout)
	if err != nil || c.TLS == nil {
		return plain, err
	}
	config := c.TLS
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName, _, _ = net.SplitHostPort(server)
	}
	secure := tls.Client(plain, config)
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = plain.Close()
		return nil, fmt.Errorf("TLS with %s: %w", server, err)
	}
	return abrupt{secure}, nil
}

// abrupt closes the connection below TLS. To take leave of the other side may take seconds
// where that does not read, and who closes a connection to a server cannot wait.
type abrupt struct{ *tls.Conn }

func (a abrupt) Close() error { return a.NetConn().Close() }
