package zklock_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/testserver"
)

// frozenURL makes the test binary the process that testFrozen freezes.
const frozenURL = "HOLDFAST_ZK_FROZEN_URL"

func TestMain(m *testing.M) {
	if url := os.Getenv(frozenURL); url != "" {
		os.Exit(holdAndTell(url))
	}
	os.Exit(testserver.Main(m, 16))
}

// holdAndTell takes a lock, says so, and says when it was told that it is lost.
func holdAndTell(url string) int {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	hf, err := holdfast.Open(ctx, url, holdfast.Config{})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	lease, err := hf.Mutex("n").Lock(ctx)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("held", lease.Fence())
	<-lease.Context().Done()
	if !errors.Is(context.Cause(lease.Context()), holdfast.ErrLost) {
		fmt.Println(context.Cause(lease.Context()))
		return 1
	}
	fmt.Println("told")
	return 0
}
