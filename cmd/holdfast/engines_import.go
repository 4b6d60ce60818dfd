package main

import (
	"net/url"
	"path/filepath"

	"github.com/holdfast-go/holdfast/filelock"

	// The engines that the program knows. Each registers its URL schemes.
	_ "github.com/holdfast-go/holdfast/memlock"
)

// defaultURL names the engine that is used when neither --url nor HOLDFAST_URL does: files in
// the user's state folder.
func defaultURL() (string, error) {
	folder, err := filelock.DefaultFolder()
	if err != nil {
		return "", err
	}
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(folder)}).String(), nil
}
