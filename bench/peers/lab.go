package main

import (
	"fmt"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// start starts the server of a product. The server's close ends it, and what it has written.
func start(p *product) (*server, error) {
	l, err := testserver.NewLab()
	if err != nil {
		return nil, err
	}
	var s *server
	if l.Do(func() { s = p.start(l) }) != nil {
		return nil, fmt.Errorf("%s: %w", p.name, l.Close())
	}
	s.lab = l
	return s, nil
}
