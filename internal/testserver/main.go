package testserver

import (
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Main runs the tests of a package, for its TestMain, and returns the code to exit with. That is
// not 0 either where they have left goroutines, or processes that nobody has waited for.
//
// At least parallel tests run at the same time, unless -parallel says otherwise. Most that tests on
// servers do is to wait, for servers that start and for leases and graces that end, so there can be
// more than processors. Goroutines in which one of these functions stands are not counted: they
// are what a library is known to leave.
func Main(m *testing.M, parallel int, libraries ...string) int {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", strconv.Itoa(max(parallel, runtime.GOMAXPROCS(0))))
	}
	spawner() // stays
	before := len(goroutines(libraries))
	code := m.Run()
	if code != 0 { // what is left is left by that
		return code
	}
	if err := childLeft(); err != nil {
		fmt.Println(err)
		return 1
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		left := goroutines(libraries)
		if len(left) <= before {
			return code
		}
		if time.Now().After(deadline) {
			fmt.Printf("goroutines are left:\n%s\n", strings.Join(left, "\n\n"))
			return 1
		}
	}
}

// goroutines returns the stacks of those in which none of these functions stands.
func goroutines(except []string) []string {
	text := make([]byte, 64<<10)
	n := runtime.Stack(text, true)
	for ; n == len(text); n = runtime.Stack(text, true) {
		text = make([]byte, 2*len(text))
	}
	return slices.DeleteFunc(strings.Split(string(text[:n]), "\n\n"), func(stack string) bool {
		return slices.ContainsFunc(except, func(f string) bool { return strings.Contains(stack, f) })
	})
}
