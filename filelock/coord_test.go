package filelock_test

import (
	"testing"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/filelock"
	"github.com/holdfast-go/holdfast/internal/coordtest"
)

func TestCoordination(t *testing.T) {
	folder := t.TempDir()
	coordtest.Run(t, coordtest.Harness{Open: func(t *testing.T) *holdfast.Client {
		e, err := filelock.Open(folder, filelock.Config{})
		if err != nil {
			t.Fatal(err)
		}
		c, err := holdfast.New(e, holdfast.Config{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}})
}
