package driver

import (
	"fmt"
	"unicode"
	"unicode/utf8"
)

// MaxName is the longest name, in bytes.
const MaxName = 512

// CheckName returns nil for a name that every engine takes: 1 to [MaxName] bytes of UTF-8
// without control characters. Names are compared byte by byte; no engine folds case or
// normalises them.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("name is empty: give it 1 to %d bytes", MaxName)
	case len(name) > MaxName:
		return fmt.Errorf("name has %d bytes: shorten it to %d", len(name), MaxName)
	case !utf8.ValidString(name):
		return fmt.Errorf("name is not valid UTF-8: encode binary names, for example in hex")
	}
	for i, r := range name {
		if unicode.IsControl(r) {
			return fmt.Errorf("name has the control character %U at byte %d: remove or encode it", r, i)
		}
	}
	return nil
}
