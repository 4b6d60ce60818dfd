package testserver

import (
	"crypto/tls"
	"strconv"
	"time"
)

// prepareTLS makes what the server shows and what this package's own client trusts.
func (s *RedisServer) prepareTLS() {
	s.t.Helper()
	o := s.options.TLS
	if o == nil {
		return
	}
	s.ca = o.CA
	if s.ca == nil {
		s.ca = NewCA(s.t)
	}
	s.security = s.ca.ClientConfig()
	// A certificate that has expired must not keep this package out: its client believes to
	// live when it was still good.
	then := s.ca.cert.NotBefore.Add(time.Minute)
	s.security.Time = func() time.Time { return then }
	s.security.ServerName = s.hosts()[0]
}

func (s *RedisServer) hosts() []string {
	if hosts := s.options.TLS.Hosts; len(hosts) > 0 {
		return hosts
	}
	return []string{"127.0.0.1", "localhost"}
}

// CA returns the authority that signed the server's certificate, nil without TLS.
func (s *RedisServer) CA() *CA { return s.ca }

// TLSConfig returns what a client needs to talk to the server, nil without TLS.
func (s *RedisServer) TLSConfig() *tls.Config {
	s.t.Helper()
	if s.ca == nil {
		return nil
	}
	config := s.ca.ClientConfig()
	config.ServerName = s.hosts()[0]
	return config
}

// tlsConfig returns the lines of the configuration that say which port speaks what.
func (s *RedisServer) tlsConfig() []string {
	port := strconv.Itoa(s.port)
	o := s.options.TLS
	if o == nil {
		return []string{"port " + port}
	}
	files := s.ca.Issue("server-"+port, o.Expired, s.hosts()...)
	return []string{
		"port 0",
		"tls-port " + port,
		"tls-replication yes",
		"tls-cert-file " + strconv.Quote(files.Cert),
		"tls-key-file " + strconv.Quote(files.Key),
		"tls-ca-cert-file " + strconv.Quote(s.ca.File()),
		"tls-auth-clients " + yesNo(o.ClientCert),
	}
}
