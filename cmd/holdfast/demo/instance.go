package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
)

// drainTimeout is how long an instance that was told to end goes on answering. Its clients
// have gone by then.
const drainTimeout = 2 * time.Second

// invoice is the answer to POST /invoices.
type invoice struct {
	Number int64  `json:"number,omitempty"`
	Fence  int64  `json:"fence,omitempty"`
	Error  string `json:"error,omitempty"`
}

// instanceCommand is what the demo runs as a process of its own for every member of the
// cluster. The URL of the engine comes in the environment, since it may hold a password and
// command lines are public.
func instanceCommand() *cobra.Command {
	var key, path, lock string
	var number int
	cmd := &cobra.Command{
		Use:           "instance",
		Short:         "One web service of the demo's cluster",
		Hidden:        true,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			signal.Ignore(os.Interrupt) // Ctrl-C goes to all processes; the demo ends its instances itself
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			go func() {
				// Standard input ends when the demo says so, and also when it was killed.
				io.Copy(io.Discard, cmd.InOrStdin())
				cancel()
			}()
			s := &service{number: number}
			owner := fmt.Sprintf("demo instance %d/%d", number, os.Getpid())
			return classify(s.run(ctx, cmd.OutOrStdout(), path, func(ctx context.Context) (*guard, error) {
				return openGuard(ctx, key, os.Getenv("HOLDFAST_URL"), lock, owner)
			}))
		},
	}
	f := cmd.Flags()
	f.StringVar(&key, "strategy", "", "key of the strategy")
	f.StringVar(&path, "database", "", "file of the database")
	f.StringVar(&lock, "lock", "", "name of the lock")
	f.IntVar(&number, "number", 0, "number of the instance")
	return cmd
}

// service is the web service that issues invoices.
type service struct {
	number int
	store  *store
	guard  *guard
}

// run serves until ctx ends. It writes its address to out once it is ready.
func (s *service) run(ctx context.Context, out io.Writer, path string, openGuard func(context.Context) (*guard, error)) (err error) {
	if s.store, err = openStore(ctx, path); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.store.close()) }()
	if s.guard, err = openGuard(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.guard.close()) }()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: s.routes(), ReadHeaderTimeout: requestTimeout}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	if _, err := fmt.Fprintln(out, l.Addr()); err != nil {
		return errors.Join(err, server.Close())
	}
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if server.Shutdown(drain) != nil {
		return server.Close()
	}
	return nil
}

func (s *service) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("POST /invoices", func(w http.ResponseWriter, r *http.Request) {
		inv, err := s.issue(r.Context())
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			inv = invoice{Error: err.Error()}
			w.WriteHeader(http.StatusInternalServerError)
		}
		json.NewEncoder(w).Encode(inv) // a client that has gone needs no answer
	})
	return mux
}

// issue issues one invoice.
func (s *service) issue(ctx context.Context) (inv invoice, err error) {
	err = s.guard.do(ctx, func(ctx context.Context, fence int64) error {
		inv.Fence = fence
		inv.Number, err = s.store.issue(ctx, s.number, fence)
		return err
	})
	return inv, err
}
