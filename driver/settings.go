package driver

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Settings reads the query parameters of a URL. Each parameter is read by a method, which
// returns the default where it is absent; Err then returns every violation joined,
// parameters that nobody read included.
type Settings struct {
	values url.Values
	known  []string
	errs   []error
}

// NewSettings returns the settings in the query of u.
func NewSettings(u *url.URL) *Settings {
	values, err := url.ParseQuery(u.RawQuery)
	s := &Settings{values: values}
	if err != nil {
		s.errs = append(s.errs, fmt.Errorf("query of the URL: %w", err))
	}
	return s
}

// take returns the only value of key and whether there is one.
func (s *Settings) take(key string) (string, bool) {
	s.known = append(s.known, key)
	v, ok := s.values[key]
	delete(s.values, key)
	if len(v) > 1 {
		s.fail(key, "is given %d times: give it once", len(v))
		return "", false
	}
	if !ok {
		return "", false
	}
	return v[0], true
}

func (s *Settings) fail(key, format string, args ...any) {
	s.errs = append(s.errs, fmt.Errorf("parameter %q "+format, append([]any{key}, args...)...))
}

// String reads key as it is.
func (s *Settings) String(key, def string) string {
	if v, ok := s.take(key); ok {
		return v
	}
	return def
}

// Duration reads key as a duration in Go's notation, for example 1m30s.
func (s *Settings) Duration(key string, def time.Duration) time.Duration {
	v, ok := s.take(key)
	if !ok {
		return def
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		s.fail(key, "is %q: write a duration such as 500ms, 10s or 1m30s", shorten(v))
		return def
	}
	return d
}

// Int reads key as a decimal number.
func (s *Settings) Int(key string, def int) int {
	v, ok := s.take(key)
	if !ok {
		return def
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		s.fail(key, "is %q: write a whole number", shorten(v))
		return def
	}
	return n
}

// Bool reads key as on or off, true or false, 1 or 0.
func (s *Settings) Bool(key string, def bool) bool {
	v, ok := s.take(key)
	if !ok {
		return def
	}
	switch strings.ToLower(v) {
	case "on", "true", "1", "yes":
		return true
	case "off", "false", "0", "no":
		return false
	}
	s.fail(key, "is %q: write on or off", shorten(v))
	return def
}

// Rest returns u with the parameters that nobody has read yet.
func (s *Settings) Rest(u *url.URL) *url.URL {
	rest := *u
	rest.RawQuery = s.values.Encode()
	return &rest
}

// Err returns all violations as one error of kind [Invalid], among them every parameter that is left unread.
func (s *Settings) Err() error {
	errs := slices.Clone(s.errs)
	for key := range s.values {
		text := fmt.Sprintf("parameter %q is not known", shorten(key))
		if len(s.known) > 0 {
			text += ": known are " + strings.Join(s.known, ", ")
		}
		errs = append(errs, errors.New(text))
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return invalid(errs)
}

// invalid joins errs into an Invalid error, nil where there are none.
func invalid(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return Fail(Invalid, errors.Join(errs...))
}

// ErrSoFar returns the violations among the parameters that were read.
func (s *Settings) ErrSoFar() error { return invalid(s.errs) }

// shorten keeps hostile values from filling a message.
func shorten(v string) string {
	if len(v) > 64 {
		return v[:64] + "…"
	}
	return v
}
