package service_test

import (
	"os"
	"testing"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// A service that has ended leaves no goroutine behind, and so no connection and no lock.
func TestMain(m *testing.M) { os.Exit(testserver.Main(m, 1)) }
