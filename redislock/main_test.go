package redislock_test

import (
	"flag"
	"runtime"
	"strconv"
	"testing"
)

// TestMain lets more tests run at the same time than there are processors, unless -parallel says
// otherwise: what most of them do is to wait, for servers that start and for leases and graces
// that end.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", strconv.Itoa(max(6, runtime.GOMAXPROCS(0))))
	}
	m.Run()
}
