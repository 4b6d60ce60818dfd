package interoptest

import (
	"flag"
	"os"
	"testing"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

// TestMain has more tests run at once than there are processors, as they mostly wait, and
// looks whether they have left goroutines or processes.
func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv(childVariable) != "" {
		child()
		return
	}
	if err := flag.Set("test.parallel", "12"); err != nil {
		panic(err)
	}
	os.Exit(testserver.Main(m))
}
