package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// product is a kind of server, and what is measured on it.
type product struct {
	name     string
	start    func(l *testserver.Lab) *server
	adapters []adapter // in the order of the tables
	patterns []pattern
	targets  []target
}

var products = []*product{&onRedis, &onPostgres, &onMariaDB, &onEtcd, &onZooKeeper, &onRedlock}

func serverNames() string {
	var names []string
	for _, p := range products {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

func productNamed(name string) (*product, error) {
	for _, p := range products {
		if p.name == name {
			return p, nil
		}
	}
	return nil, fmt.Errorf("there is no server %q: write one of %s", name, serverNames())
}

// adapter returns that of a name, or a control.
func (p *product) adapter(name string) (adapter, error) {
	for _, a := range slices.Concat(p.adapters, controls) {
		if a.name == name {
			return a, nil
		}
	}
	return adapter{}, fmt.Errorf("there is no adapter %q on %s", name, p.name)
}

func (p *product) pattern(name string) (pattern, error) {
	for _, w := range p.patterns {
		if w.name == name {
			return w, nil
		}
	}
	return pattern{}, fmt.Errorf("there is no pattern %q on %s", name, p.name)
}
