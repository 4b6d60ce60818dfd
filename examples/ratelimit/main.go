// Command ratelimit is a web service whose limits hold for all its instances together: how much
// each customer may ask, and how much the service itself may ask of somebody else.
//
// Run it in two terminals, and ask both:
//
//	go run ./ratelimit -listen 127.0.0.1:8081
//	go run ./ratelimit -listen 127.0.0.1:8082
//	for i in 1 2 3 4; do
//		curl -i -H 'Authorization: Bearer alice-key' 127.0.0.1:8081/hello
//		curl -i -H 'Authorization: Bearer alice-key' 127.0.0.1:8082/hello
//	done
//
// The sixth is answered 429 with Retry-After, whichever instance it comes to; bob-key has a limit of
// its own. Then try this:
//
//   - kill -9 one and start it again: what was counted is on the engine, not in the process.
//   - POST to /mail of both in a loop: mails go out one each two seconds, whoever sends them, and who
//     would wait for too long is answered 503 at once.
//   - on a server (-engine redis://127.0.0.1:6379) stop the server: /hello is answered without being
//     counted, /mail is not. Which of the two is right is for each limit to say.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/examples/internal/program"
	"github.com/holdfast-go/holdfast/httplimit"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8081", "`address` to serve on")
	program.Main(func(ctx context.Context, hf *holdfast.Client) error {
		l, err := net.Listen("tcp", *listen)
		if err != nil {
			return err
		}
		return run(ctx, hf, l)
	})
}

// run serves until ctx ends, and then finishes what it has begun.
func run(ctx context.Context, hf *holdfast.Client, l net.Listener) error {
	h, err := handler(hf)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	log.Printf("serving on %s", l.Addr())
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return errors.Join(ctx.Err(), server.Shutdown(last))
}

func handler(hf *holdfast.Client) (http.Handler, error) {
	limit, err := httplimit.Middleware(hf, httplimit.Config{
		Key:    customer,
		Rate:   holdfast.SlidingWindow(5, 10*time.Second),
		Policy: "per-customer",
	})
	if err != nil {
		return nil, err
	}
	// All mails of all customers, as the provider's contract has it: 30 a minute, evenly.
	mails := hf.Limiter("mails", holdfast.Pace(30, time.Minute, 1))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s\n", customer(r))
	})
	mux.HandleFunc("POST /mail", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
		defer cancel()
		if err := mails.Wait(ctx, 1); err != nil { // full, or nobody can say whether it is
			http.Error(w, "no mail can be sent now", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "sent")
	})
	return authenticated(limit(mux)), nil
}

// keys stands for whatever knows your customers.
var keys = map[string]string{"alice-key": "alice", "bob-key": "bob"}

// customer returns who asks, "" for a stranger.
func customer(r *http.Request) string {
	key, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return keys[key]
}

// authenticated comes before the limit, which lets requests pass that are on nobody's account.
func authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if customer(r) == "" {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}
