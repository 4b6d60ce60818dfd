package filelock

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
)

// maxReadable is how much of a name its file shows. With the 53 bytes of hash behind it a
// file name stays far below the 255 bytes that file systems allow.
const maxReadable = 40

// lowerBase32 has no upper-case letters: on a file system that folds case no two encodings
// fall together.
var lowerBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// fileName returns the file of a name. The hash alone keeps names apart; what stands before
// it is for people. It holds no separator and does not begin with a dot, so that it stays in
// its folder and is no hidden file; and as the hash is always there, it is none of the device
// names of Windows.
func fileName(name string) string {
	sum := sha256.Sum256([]byte(name))
	return readable(name) + "-" + lowerBase32.EncodeToString(sum[:])
}

// readable returns the part of a file name that people recognise. The result for a prefix of
// a name is a prefix of the result for the name.
func readable(name string) string {
	b := make([]byte, 0, maxReadable)
	for i := 0; i < len(name) && len(b) < maxReadable; i++ {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '.' && i > 0:
		default:
			c = '_'
		}
		b = append(b, c)
	}
	return string(b)
}

// mayBelong reports whether file can be that of a name with this prefix. It saves List from
// opening files; the name inside decides. Hidden files are not ours.
func mayBelong(file, prefix string) bool {
	return !strings.HasPrefix(file, ".") && strings.HasPrefix(file, readable(prefix))
}
