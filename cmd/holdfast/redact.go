package main

import (
	"net/url"
	"strings"
)

const hidden = "xxxxx"

// redact returns as much of an engine's URL as may be shown: never user, password or query.
// What does not look like a URL, or hides an @ where none belongs because a password was not
// escaped, is reduced to its scheme.
func redact(raw string) string {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return "the engine"
	}
	u, err := url.Parse(raw)
	if err != nil || strings.Contains(u.Path+u.RawQuery+u.Fragment, "@") {
		if strings.ContainsAny(rest, "@?") || err != nil {
			return scheme + "://" + hidden
		}
	}
	return u.Scheme + "://" + u.Host + u.Path
}

// scrub takes the secrets of an engine's URL out of a text, should an engine have quoted
// them. Passwords of one or two characters would take the text with them.
func scrub(text, rawURL string) string {
	var secrets []string
	if _, rest, ok := strings.Cut(rawURL, "://"); ok {
		if i := strings.LastIndex(rest, "@"); i >= 0 {
			_, password, _ := strings.Cut(rest[:i], ":")
			secrets = append(secrets, rest[:i], password)
		}
	}
	if u, err := url.Parse(rawURL); err == nil {
		password, _ := u.User.Password()
		secrets = append(secrets, password)
		for key, values := range u.Query() {
			if isSecret(key) {
				secrets = append(secrets, values...)
			}
		}
		for pair := range strings.SplitSeq(u.RawQuery, "&") { // as it stands in the URL, too
			if key, value, _ := strings.Cut(pair, "="); isSecret(key) {
				secrets = append(secrets, value)
			}
		}
	}
	for _, s := range secrets {
		if len(s) > 2 {
			text = strings.ReplaceAll(text, s, hidden)
		}
	}
	return text
}

// isSecret tells the parameters of URLs that hold secrets by their names.
func isSecret(key string) bool {
	key = strings.ToLower(key)
	for _, word := range []string{"pass", "pwd", "secret", "token", "key"} {
		if strings.Contains(key, word) {
			return true
		}
	}
	return false
}
