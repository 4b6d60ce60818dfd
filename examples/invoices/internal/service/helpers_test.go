package service_test

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
)

// hold takes the lock of the invoices from another process's place, and returns what gives it
// back.
func hold(t *testing.T, engine string) (release func()) {
	t.Helper()
	hf, err := holdfast.Open(t.Context(), engine, holdfast.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hf.Close() })
	l, err := hf.Mutex("invoices").Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := l.Unlock(); err != nil {
			t.Error(err)
		}
	}
}

// awaitWaiting returns when somebody waits for the lock of the invoices.
func awaitWaiting(t *testing.T, i *instance) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if _, body, _ := i.do(t, "GET", "/metrics", "", ""); strings.Contains(body, "invoices_requests_under_way 1\n") {
			return
		}
	}
	t.Fatal("no request is under way")
}
