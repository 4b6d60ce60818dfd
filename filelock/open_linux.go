package filelock

import "golang.org/x/sys/unix"

// quietly keeps reads from changing the file's time of access, which costs more than the read
// itself where there has been a write since the one before. Only the owner of a file may ask
// for that.
const quietly = unix.O_NOATIME
