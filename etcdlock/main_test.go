package etcdlock_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain has more tests run at once than there are processors: nearly all of their time is that of
// leases that run out, and of elections.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("16")
	}
	os.Exit(m.Run())
}
