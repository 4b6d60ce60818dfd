package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// findCommand finds the file to run, as a shell would.
func findCommand(name, pathList string) (string, error) {
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
		return path, nil
	case errors.Is(err, exec.ErrDot):
		return "", &failure{exitNotFound, fmt.Errorf("command %q is only in the current folder", name), fmt.Sprintf("write ./%s if it is meant", name)}
	case errors.Is(err, fs.ErrPermission) || isFile(name, pathList):
		return "", &failure{exitNotStarted, fmt.Errorf("command %q is not executable", name), "chmod +x makes it so"}
	}
	hint := ""
	if isBare(name) {
		hint = "it is in none of the folders in PATH"
	}
	return "", &failure{exitNotFound, fmt.Errorf("command %q was not found", name), hint}
}

// isFile reports whether there is something of that name where a command is looked for:
// LookPath says of a file that is not executable that it is not there.
func isFile(name, pathList string) bool {
	if !isBare(name) {
		_, err := os.Stat(name)
		return err == nil
	}
	for _, dir := range filepath.SplitList(pathList) {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode().IsRegular() {
			return true
		}
	}
	return false
}

// isBare reports whether a name is looked for in PATH.
func isBare(name string) bool { return !strings.ContainsFunc(name, isSeparator) }

func isSeparator(r rune) bool { return r < 0x80 && os.IsPathSeparator(uint8(r)) }

// startFailure is the error of a command that was found but did not start. The system says
// "not found" then of what the file's first line names, or of a file that has gone since.
func startFailure(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &failure{exitNotFound, fmt.Errorf("command %q could not be started: %w", path, err), "the interpreter that its first line names may be missing"}
	}
	hint := ""
	if isNoExec(err) {
		hint = "a script needs #! and its interpreter in the first line"
	}
	return &failure{exitNotStarted, fmt.Errorf("command %q could not be started: %w", path, err), hint}
}
