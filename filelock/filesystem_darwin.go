package filelock

import "golang.org/x/sys/unix"

// networkFileSystem returns the name of the network file system that path is on, or "".
func networkFileSystem(path string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return "", err
	}
	switch name := unix.ByteSliceToString(st.Fstypename[:]); name {
	case "nfs", "smbfs", "afpfs", "webdav", "ftp":
		return name, nil
	}
	if st.Flags&unix.MNT_LOCAL == 0 {
		return "a file system that is not local", nil
	}
	return "", nil
}
