//go:build !linux

package testserver

import (
	"testing"
	"time"
)

type clock struct{ env []string }

func newClock(t testing.TB, _ string) *clock {
	t.Helper()
	Missing(t, "servers have clocks of their own on Linux only")
	return nil
}

func (*clock) set(time.Duration) {}
