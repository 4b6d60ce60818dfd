package holdfast_test

import (
	"testing"

	"github.com/holdfast-go/holdfast"
)

// No version means "whatever is there": that is what Set and Delete are for.
func TestItemVersionThatIsNone(t *testing.T) {
	item := newClient(t, holdfast.Config{}).Item("x")
	if _, err := item.Set(t.Context(), []byte("kept"), 0); err != nil {
		t.Fatal(err)
	}
	for _, version := range []int64{-1, -2} {
		_, err := item.CompareAndSet(t.Context(), version, []byte("lost"), 0)
		want(t, err, holdfast.ErrInvalid)
		want(t, item.CompareAndDelete(t.Context(), version), holdfast.ErrInvalid)
	}
	if v, err := item.Get(t.Context()); string(v.Data) != "kept" || err != nil {
		t.Errorf("stored is %q, %v", v.Data, err)
	}
}
