package main

import (
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/holdfast-go/holdfast"
)

// ownerLabel is the label that others see: that of --owner, of the engine's URL, or user,
// host and process id. An inherited HOLDFAST_OWNER is the label of somebody else, the run
// that this one is nested in.
func (a *app) ownerLabel(engineURL string) string {
	if a.owner != "" {
		return a.owner
	}
	if _, query, ok := strings.Cut(engineURL, "?"); ok {
		values, _ := url.ParseQuery(query)
		if label := values.Get("owner"); label != "" {
			return label
		}
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	label := fmt.Sprintf("%s/%d", host, os.Getpid())
	if user := a.getenv("USER"); user != "" {
		label = user + "@" + label
	}
	if label = printable(label); len(label) > holdfast.MaxOwner {
		return fmt.Sprintf("unknown/%d", os.Getpid())
	}
	return label
}
