package holdfast_test

import (
	"testing"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/coordtest"
	"github.com/holdfast-go/holdfast/memlock"
)

func TestCoordination(t *testing.T) {
	store := memlock.NewStore(memlock.Config{})
	coordtest.Run(t, coordtest.Harness{Open: func(t *testing.T) *holdfast.Client {
		return clientOn(t, store.Engine(), holdfast.Config{})
	}})
}
