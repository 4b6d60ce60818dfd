package interoptest

import (
	"os"
	"testing"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

func TestMain(m *testing.M) { os.Exit(testserver.Main(m, 16)) }
