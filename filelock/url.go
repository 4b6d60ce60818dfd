package filelock

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/holdfast-go/holdfast/driver"
)

func init() {
	driver.Register(driver.Scheme{
		Name: "file", Example: "file:///var/lib/holdfast", Open: openURL, Capabilities: capabilities,
	})
}

// openURL opens file:///folder.
func openURL(_ context.Context, u *url.URL) (driver.Engine, error) {
	if err := driver.NewSettings(u).Err(); err != nil {
		return nil, driver.Fail(driver.Invalid, err)
	}
	switch {
	case u.Host != "" && u.Host != "localhost", u.User != nil:
		return nil, driver.Failf(driver.Invalid,
			"URL: %q stands where a host would: locks in a folder are for one machine; write three slashes, as in file:///var/lib/holdfast", u.Host)
	case u.Opaque != "":
		return nil, driver.Failf(driver.Invalid, "URL: the folder is relative: write file:// and the whole path, as in file:///var/lib/holdfast")
	case u.Fragment != "":
		return nil, driver.Failf(driver.Invalid, "URL: write the # in the folder's path as %%23")
	case strings.ContainsRune(u.Path, 0):
		return nil, driver.Failf(driver.Invalid, "URL: the folder's path has a NUL character: remove it")
	case strings.Trim(u.Path, "/") == "":
		return nil, driver.Failf(driver.Invalid, "URL: it names no folder: write one, as in file:///var/lib/holdfast")
	}
	e, err := Open(folderOf(u.Path, runtime.GOOS), Config{})
	if err != nil {
		return nil, err // not e: it would be an interface that is not nil
	}
	return e, nil
}

// folderOf returns the folder that the path of a URL names: on Windows /C:/locks is C:/locks.
func folderOf(path, goos string) string {
	if goos == "windows" && len(path) > 2 && path[2] == ':' {
		return path[1:]
	}
	return path
}

// DefaultFolder returns where locks of this user belong when nobody says otherwise:
// $XDG_STATE_HOME/holdfast or ~/.local/state/holdfast, on macOS
// ~/Library/Application Support/holdfast, on Windows %LocalAppData%\holdfast. It does not
// make the folder, and does not say that it can be used.
func DefaultFolder() (string, error) {
	if runtime.GOOS == "windows" {
		if dir := os.Getenv("LocalAppData"); filepath.IsAbs(dir) {
			return filepath.Join(dir, "holdfast"), nil
		}
		return "", driver.Failf(driver.Unavailable, "no default folder: %%LocalAppData%% is not set to a whole path; set it, or name a folder")
	}
	// As the standard for it says, a path that is not absolute is ignored.
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) && runtime.GOOS != "darwin" {
		return filepath.Join(dir, "holdfast"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", driver.Failf(driver.Unavailable, "no default folder: %w; set $HOME, or name a folder", err)
	}
	if runtime.GOOS == "darwin" {
		return filepath.Join(home, "Library", "Application Support", "holdfast"), nil
	}
	return filepath.Join(home, ".local", "state", "holdfast"), nil
}
