package main

import (
	"net/url"
	"path/filepath"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/holdfast-go/holdfast/filelock"

	// The engines that the program knows. Each registers its URL schemes.
	_ "github.com/holdfast-go/holdfast/etcdlock"
	_ "github.com/holdfast-go/holdfast/memlock"
	_ "github.com/holdfast-go/holdfast/mysqllock"
	_ "github.com/holdfast-go/holdfast/pglock"
	_ "github.com/holdfast-go/holdfast/redislock"
	_ "github.com/holdfast-go/holdfast/zklock"
)

// Clients of engines write nothing to stderr by themselves: what went wrong is in the error,
// and they know nothing of secrets.
func init() { redis.SetLogger(&logging.VoidLogger{}) }

// defaultURL names the engine that is used when neither --url nor HOLDFAST_URL does: files in
// the user's state folder.
func defaultURL() (string, error) {
	folder, err := filelock.DefaultFolder()
	if err != nil {
		return "", err
	}
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(folder)}).String(), nil
}
