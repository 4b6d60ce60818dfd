package filelock_test

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/filelock"
)

// churn takes and releases shares of name from two engines until stop is closed.
func churn(t *testing.T, folder, name string, stop <-chan struct{}) *sync.WaitGroup {
	var all sync.WaitGroup
	for range 2 {
		e := open(t, folder)
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				r := inMode(request(name), driver.Shared)
				g, err := e.Acquire(context.Background(), r)
				if err == nil {
					err = e.Release(context.Background(), r.Claim(g))
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	return &all
}

// Renewals read without the guard. However fast the file changes, they neither miss a share
// that is there nor see one that was broken before they began.
func TestRenewDuringChurn(t *testing.T) {
	for name, crowd := range map[string]int{"slots": 0, "bodies": 100} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			e, other := open(t, folder), open(t, folder)
			if err := e.Crowd("a", crowd); err != nil {
				t.Fatal(err)
			}
			stop := make(chan struct{})
			all := churn(t, folder, "a", stop)
			defer all.Wait()
			defer close(stop)
			for range 20 {
				r := inMode(request("a"), driver.Shared)
				claims := []driver.Claim{r.Claim(acquire(t, e, r))}
				for range 100 {
					if err := e.Renew(patient(t), claims)[0]; err != nil {
						t.Fatal(err)
					}
				}
				release(t, other, claims[0])
				wantKind(t, e.Renew(patient(t), claims)[0], driver.Lost)
			}
		})
	}
}

// Files that are deleted under those who use them cost locks, but nobody gets stuck, and the
// file that is left is a good one.
func TestDeletionDuringChurn(t *testing.T) {
	folder := t.TempDir()
	e := open(t, folder)
	var all sync.WaitGroup
	for range 3 {
		e := open(t, folder)
		all.Go(func() {
			for range 300 {
				r := waiting(request("a"))
				g, err := e.Acquire(context.Background(), r)
				if err != nil {
					t.Error(err)
					return
				}
				if err := e.Release(context.Background(), r.Claim(g)); err != nil && kindOf(t, err) != driver.NotHeld {
					t.Error(err)
				}
			}
		})
	}
	for range 100 {
		_ = os.Remove(e.PathOf("a"))
		cycleLoosely(t, e)
	}
	all.Wait()
	cycle(t, e, "a")
}

func cycleLoosely(t *testing.T, e *filelock.Engine) {
	r := waiting(request("a"))
	g := acquire(t, e, r)
	if err := e.Release(patient(t), r.Claim(g)); err != nil && kindOf(t, err) != driver.NotHeld {
		t.Error(err)
	}
}
