package service

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/holdfast-go/holdfast"

	"github.com/holdfast-go/holdfast/examples/invoices/internal/store"
	"github.com/holdfast-go/holdfast/examples/invoices/internal/strategy"
)

// Bounds of requests.
const (
	maxBody  = 4096 // bytes
	maxList  = 1000 // invoices in an answer
	someList = 100  // unless it was asked for more
)

// api answers requests.
type api struct {
	store    *store.Store
	strategy strategy.Strategy
	metrics  *metrics
	log      *slog.Logger
	timeout  time.Duration // of one request
}

func (a *api) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /invoices", a.issue)
	mux.HandleFunc("GET /invoices", a.list)
	mux.HandleFunc("GET /healthz", a.health)
	mux.Handle("GET /metrics", a.metrics.handler())
	return mux
}

// issue answers POST /invoices: 201 with a new invoice, 200 with the one that the key has
// already.
func (a *api) issue(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	a.metrics.underWay.Inc()
	defer a.metrics.underWay.Dec()
	ctx, cancel := context.WithTimeout(r.Context(), a.timeout)
	defer cancel()
	req := store.Request{Key: r.Header.Get("Idempotency-Key")}
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	body.DisallowUnknownFields()
	err := body.Decode(&req)
	if err != nil {
		err = &refusal{http.StatusBadRequest, `the body has to be JSON: {"customer": "…", "cents": 100}`}
	} else if e := req.Check(); e != nil {
		err = &refusal{http.StatusBadRequest, e.Error()}
	}
	var i store.Invoice
	status := http.StatusCreated
	if err == nil {
		i, status, err = a.once(ctx, req)
	}
	took := time.Since(began)
	if err != nil {
		status = a.fail(w, err)
		a.log.WarnContext(ctx, "request failed", "key", req.Key, "status", status, "took", took, "error", err)
	} else {
		a.log.InfoContext(ctx, "invoice issued", "key", req.Key, "status", status, "number", i.Number, "fence", i.Fence, "took", took)
		answer(w, status, i)
	}
	a.metrics.answered(status, took)
}

// once issues an invoice unless the key has one. Several requests with one key may be under way
// at the same time, at several instances: the store takes one of them.
func (a *api) once(ctx context.Context, req store.Request) (store.Invoice, int, error) {
	i, err := a.store.Find(ctx, req.Key)
	if errors.Is(err, store.ErrNotFound) {
		i, err = a.strategy.Issue(ctx, req)
		if err == nil {
			return i, http.StatusCreated, nil
		}
		if errors.Is(err, store.ErrIssued) {
			i, err = a.store.Find(ctx, req.Key)
		}
	}
	if err == nil && i.Request() != req {
		err = &refusal{http.StatusUnprocessableEntity, "the Idempotency-Key was used for another invoice: take a new one"}
	}
	return i, http.StatusOK, err
}

// list answers GET /invoices?after=ID&limit=N, in the order in which they were stored.
func (a *api) list(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), a.timeout)
	defer cancel()
	after, errAfter := number(r, "after", 0)
	limit, errLimit := number(r, "limit", someList)
	if errAfter != nil || errLimit != nil || after < 0 || limit < 1 || limit > maxList {
		a.fail(w, &refusal{http.StatusBadRequest, "after has to be the id of an invoice, limit 1 to " + strconv.Itoa(maxList)})
		return
	}
	list, err := a.store.List(ctx, after, int(limit))
	if err != nil {
		a.log.WarnContext(ctx, "list failed", "status", a.fail(w, err), "error", err)
		return
	}
	answer(w, http.StatusOK, list)
}

func number(r *http.Request, name string, otherwise int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, nil
	}
	return strconv.ParseInt(text, 10, 64)
}

// health says whether requests should come here. It does not ask the lock's engine: what is away
// for one instance is away for all, and to have none is no improvement.
func (a *api) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), time.Second)
	defer cancel()
	if err := a.store.Ping(ctx); err != nil {
		a.fail(w, &refusal{http.StatusServiceUnavailable, "the database does not answer"})
		return
	}
	answer(w, http.StatusOK, map[string]string{"status": "ok"})
}

// refusal is an answer that is not about an invoice.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

// fail answers with an error, and returns the status. Details of what is behind the service are
// for its log.
func (a *api) fail(w http.ResponseWriter, err error) int {
	var r *refusal
	switch {
	case errors.As(err, &r):
	case errors.Is(err, holdfast.ErrInvalid), errors.Is(err, holdfast.ErrUnsupported):
		r = &refusal{http.StatusInternalServerError, "the service is set up wrongly"}
	case errors.Is(err, holdfast.ErrStale), errors.Is(err, holdfast.ErrLost):
		r = &refusal{http.StatusServiceUnavailable, "the lock was lost: try again, with the same key"}
	case errors.Is(err, context.DeadlineExceeded):
		r = &refusal{http.StatusServiceUnavailable, "not in time: try again, with the same key"}
	default:
		r = &refusal{http.StatusServiceUnavailable, "something that the service needs does not answer: try again, with the same key"}
	}
	if r.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	answer(w, r.status, map[string]string{"error": r.text})
	return r.status
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a client that has gone needs no answer
}
