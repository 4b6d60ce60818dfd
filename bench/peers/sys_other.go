//go:build !unix

package main

import (
	"errors"
	"time"
)

func mapShared(string, int) ([]byte, error) {
	return nil, errors.New("shared memory is not supported on this system")
}

func processorTime() time.Duration { return 0 }

func unmapShared([]byte) error { return nil }
