package service

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast/examples/invoices/internal/strategy"
)

// Config is what the environment says. The zero value of a field stands for its default.
type Config struct {
	Listen         string        // INVOICES_LISTEN, host:port; default 127.0.0.1:8080
	Database       string        // INVOICES_DATABASE, postgres://… or sqlite:///…; has to be given
	Strategy       string        // INVOICES_STRATEGY; default mutex
	Engine         string        // HOLDFAST_URL; has to be given for strategies that use one
	Instance       int           // INVOICES_INSTANCE, 0 to 9999; tells instances apart in logs and invoices
	RequestTimeout time.Duration // INVOICES_REQUEST_TIMEOUT, 10ms to 5m; default 10s
	DrainTimeout   time.Duration // INVOICES_DRAIN_TIMEOUT, 10ms to 5m; default 10s
	LogLevel       slog.Level    // INVOICES_LOG_LEVEL, debug, info, warn or error; default info
}

// SettingError says which setting is wrong and what to do about it. It never quotes URLs, which
// may hold passwords.
type SettingError struct {
	Name   string // of the variable in the environment
	Remedy string
}

// Error says it in one line.
func (e *SettingError) Error() string { return e.Name + ": " + e.Remedy }

// FromEnvironment reads the settings, through a function like os.Getenv. The error has a
// *SettingError for everything that is wrong.
func FromEnvironment(getenv func(string) string) (Config, error) {
	e := environment{getenv: getenv}
	c := Config{
		Listen:         e.text("INVOICES_LISTEN", "127.0.0.1:8080"),
		Database:       e.text("INVOICES_DATABASE", ""),
		Strategy:       e.text("INVOICES_STRATEGY", "mutex"),
		Engine:         e.text("HOLDFAST_URL", ""),
		RequestTimeout: e.duration("INVOICES_REQUEST_TIMEOUT", 10*time.Second),
		DrainTimeout:   e.duration("INVOICES_DRAIN_TIMEOUT", 10*time.Second),
	}
	var err error
	if c.Instance, err = strconv.Atoi(e.text("INVOICES_INSTANCE", "0")); err != nil || c.Instance < 0 || c.Instance > 9999 {
		e.wrong("INVOICES_INSTANCE", "it has to be a number from 0 to 9999")
	}
	if c.LogLevel.UnmarshalText([]byte(e.text("INVOICES_LOG_LEVEL", "info"))) != nil {
		e.wrong("INVOICES_LOG_LEVEL", "it has to be debug, info, warn or error")
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		e.wrong("INVOICES_LISTEN", "it has to be host:port, as 127.0.0.1:8080")
	}
	if c.Database == "" {
		e.wrong("INVOICES_DATABASE", "it has to be given: postgres://user:password@host/database or sqlite:///path/to/file")
	}
	kind, err := strategy.Named(c.Strategy)
	if err != nil {
		e.wrong("INVOICES_STRATEGY", err.Error())
	} else if kind.NeedsEngine {
		e.checkEngine(c)
	}
	return c, errors.Join(e.errs...)
}

// checkEngine wants an engine that instances share.
func (e *environment) checkEngine(c Config) {
	switch {
	case c.Engine == "":
		e.wrong("HOLDFAST_URL", fmt.Sprintf("the strategy %s needs one, as redis://127.0.0.1:6379", c.Strategy))
	case strings.HasPrefix(c.Engine, "mem:"):
		e.wrong("HOLDFAST_URL", "mem:// is within one process only: that is the strategy local")
	}
}

// environment is read through getenv, and gathers what is wrong with it.
type environment struct {
	getenv func(string) string
	errs   []error
}

func (e *environment) wrong(name, remedy string) {
	e.errs = append(e.errs, &SettingError{name, remedy})
}

func (e *environment) text(name, otherwise string) string {
	if v := e.getenv(name); v != "" {
		return v
	}
	return otherwise
}

func (e *environment) duration(name string, otherwise time.Duration) time.Duration {
	d, err := time.ParseDuration(e.text(name, otherwise.String()))
	if err != nil || d < 10*time.Millisecond || d > 5*time.Minute {
		e.wrong(name, "it has to be 10ms to 5m, as 2.5s")
	}
	return d
}

// owner is what others see of who holds a lock.
func (c Config) owner() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("invoices %d on %.64s", c.Instance, host)
}
