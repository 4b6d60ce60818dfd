package filelock

import "golang.org/x/sys/unix"

// bootID identifies the run of the kernel, or is empty where that is not known.
func bootID() string {
	id, err := unix.Sysctl("kern.bootsessionuuid")
	if err != nil || len(id) > maxBootID {
		return ""
	}
	return id
}
