package testserver_test

import (
	"os"
	"testing"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// TestMain looks whether the tests together have left something.
func TestMain(m *testing.M) { os.Exit(testserver.Main(m, 1)) }
