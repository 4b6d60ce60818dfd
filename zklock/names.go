package zklock

import (
	"strconv"
	"strings"
)

// encode turns a name into one element of a path. Printable ASCII stays as it is, so that
// others find simple names where they expect them; the rest, a slash and the percent sign
// become %XX, byte by byte, in upper case. Two names never have the same element.
func encode(name string) string {
	const digits = "0123456789ABCDEF"
	if name == "." || name == ".." { // mean something else in a path
		return strings.ReplaceAll(name, ".", "%2E")
	}
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if c < ' ' || c >= 0x7f || c == '/' || c == '%' {
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// decode is the inverse of encode. It reports false for what encode does not return.
func decode(element string) (name string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(element); i++ {
		if element[i] != '%' {
			b.WriteByte(element[i])
			continue
		}
		if i+2 >= len(element) {
			return "", false
		}
		c, err := strconv.ParseUint(element[i+1:i+3], 16, 8)
		if err != nil {
			return "", false
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), encode(b.String()) == element
}
