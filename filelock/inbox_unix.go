//go:build unix

package filelock

import (
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/holdfast-go/holdfast/driver"
)

// inbox is the named pipe through which other members wake the waiters of this one. Every
// message is one token, and far below the size up to which the kernel keeps messages whole.
type inbox struct {
	file *os.File // nil when there is none to be had
	path string
	done chan struct{}
}

// openInbox makes the pipe and delivers what arrives. Opening it for writing as well keeps
// the kernel from signalling the end of the file whenever the last sender closes it. The
// descriptor does not block, so that a goroutine that reads occupies no thread and close
// ends it.
func openInbox(path string, mode fs.FileMode, chmod bool, deliver func(driver.Token)) *inbox {
	in := &inbox{path: path, done: make(chan struct{})}
	if unix.Mkfifo(path, uint32(mode)) == nil {
		if chmod {
			_ = os.Chmod(path, mode)
		}
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			in.file = os.NewFile(uintptr(fd), path)
		}
	}
	if in.file == nil {
		close(in.done)
		return in
	}
	go in.read(deliver)
	return in
}

func (in *inbox) read(deliver func(driver.Token)) {
	defer close(in.done)
	var buf [64 * len(driver.Token{})]byte
	for {
		n, err := in.file.Read(buf[:])
		for b := buf[:n]; len(b) >= len(driver.Token{}); b = b[len(driver.Token{}):] {
			deliver(driver.Token(b))
		}
		if err != nil {
			return
		}
	}
}

func (in *inbox) close() {
	if in.file != nil {
		_ = in.file.Close()
	}
	<-in.done
}

func inboxPath(folder, home string) string {
	return filepath.Join(folder, memberFile(home)+inboxSuffix)
}

// postTo writes a token to an inbox. It never blocks, and whether the message arrives is of
// no consequence: a member that has no inbox or a full one looks by itself.
func postTo(path string, token driver.Token) {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_, _ = unix.Write(fd, token[:])
	_ = unix.Close(fd)
}
