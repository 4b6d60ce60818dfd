// Package service is an HTTP service that issues invoices with sequential numbers. Any number of
// instances of it share a database; a strategy keeps their numbers apart.
package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	_ "github.com/go-sql-driver/mysql" // for mysqllock
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	// The engines that HOLDFAST_URL may name.
	_ "github.com/holdfast-go/holdfast/etcdlock"
	_ "github.com/holdfast-go/holdfast/filelock"
	_ "github.com/holdfast-go/holdfast/mysqllock"
	_ "github.com/holdfast-go/holdfast/pglock"
	_ "github.com/holdfast-go/holdfast/redislock"
	_ "github.com/holdfast-go/holdfast/zklock"

	"github.com/holdfast-go/holdfast/examples/invoices/internal/store"
	"github.com/holdfast-go/holdfast/examples/invoices/internal/strategy"
)

// go-redis writes to stderr by itself, in no format. What went wrong is in the errors.
func init() { redis.SetLogger(&logging.VoidLogger{}) }

// startTimeout bounds the first contact with database and engine.
const startTimeout = 30 * time.Second

// ListeningMessage is logged, with "address", when requests are answered.
const ListeningMessage = "listening"

// Main runs the service as the environment says, until ctx ends, and returns the code to exit
// with: 0, 78 where a setting is wrong, 1 otherwise. It logs to w, in JSON.
func Main(ctx context.Context, getenv func(string) string, w io.Writer) int {
	cfg, err := FromEnvironment(getenv)
	log := slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: cfg.LogLevel})).With("instance", cfg.Instance)
	if err != nil {
		log.Error("wrong settings", "error", err)
		return 78
	}
	if err := Run(ctx, cfg, log); err != nil {
		log.Error("ended", "error", err)
		return 1
	}
	return 0
}

// Run serves until ctx ends. Then it takes no more requests; those that are under way are answered,
// for up to DrainTimeout; locks are given back; and Run returns.
func Run(ctx context.Context, cfg Config, log *slog.Logger) (err error) {
	a, closeAll, err := open(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           a.routes(),
		ReadHeaderTimeout: cfg.RequestTimeout,
		ReadTimeout:       cfg.RequestTimeout,
		WriteTimeout:      2 * cfg.RequestTimeout,
		IdleTimeout:       time.Minute,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	log.Info(ListeningMessage, "address", l.Addr().String(), "strategy", cfg.Strategy)
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	log.Info("draining", "for", cfg.DrainTimeout)
	drain, cancel := context.WithTimeout(context.Background(), cfg.DrainTimeout)
	defer cancel()
	if server.Shutdown(drain) != nil {
		return errors.Join(errors.New("requests were cut off: they did not end in time"), server.Close())
	}
	return nil
}

// open connects to what the instance needs.
func open(ctx context.Context, cfg Config, log *slog.Logger) (*api, func() error, error) {
	start, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	kind, err := strategy.Named(cfg.Strategy)
	if err != nil {
		return nil, nil, err
	}
	s, err := store.Open(start, cfg.Database, cfg.Instance)
	if err != nil {
		return nil, nil, fmt.Errorf("database: %w", err)
	}
	m := newMetrics()
	st, err := kind.Open(start, strategy.Settings{Store: s, Engine: cfg.Engine, Owner: cfg.owner(), Log: log, Metrics: m})
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("strategy %s: %w", cfg.Strategy, err), s.Close())
	}
	a := &api{store: s, strategy: st, metrics: m, log: log, timeout: cfg.RequestTimeout}
	return a, func() error { return errors.Join(st.Close(), s.Close()) }, nil
}
