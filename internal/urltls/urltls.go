// Package urltls reads what an engine's URL says of TLS.
package urltls

import (
	"crypto/tls"
	"crypto/x509"
	"os"

	"github.com/holdfast-go/holdfast/driver"
)

// Read reads the parameters ca (a file with the authorities to trust, in place of the
// system's), cert and key (the files of a certificate to show) and insecure=on (the servers'
// certificates are not checked). It tells fail what is wrong with them.
func Read(s *driver.Settings, fail func(format string, args ...any)) *tls.Config {
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, InsecureSkipVerify: s.Bool("insecure", false),
	}
	if file := s.String("ca", ""); file != "" {
		pem, err := os.ReadFile(file)
		config.RootCAs = x509.NewCertPool()
		if err != nil {
			fail("parameter \"ca\": %v", err)
		} else if !config.RootCAs.AppendCertsFromPEM(pem) {
			fail("parameter \"ca\": %.200q has no certificate in PEM", file)
		}
	}
	cert, key := s.String("cert", ""), s.String("key", "")
	switch {
	case (cert == "") != (key == ""):
		fail("parameters \"cert\" and \"key\" go together: give both or neither")
	case cert != "":
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			fail("parameters \"cert\" and \"key\": %v", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config
}
