package filelock

import (
	"os"
	"strings"
)

// bootID identifies the run of the kernel, or is empty where that is not known.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || len(id) > maxBootID {
		return ""
	}
	return strings.TrimSpace(string(id))
}
