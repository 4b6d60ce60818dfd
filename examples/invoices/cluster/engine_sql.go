package main

import (
	"context"
	"database/sql"
	"strings"

	"github.com/holdfast-go/holdfast/internal/testserver"
)

var onPostgres = &engine{
	name: "postgres", title: "PostgreSQL", dependsOn: "nothing more: the locks are in the same database",
	start: func(l *testserver.Lab, db *database) *backend {
		return &backend{
			url: db.url + "&ttl=2s",
			breakIt: func(struck func()) string {
				struck()
				if err := db.endSessionsOfLocks(); err != nil {
					l.Fatal(err)
				}
				return "the sessions of all locks ended by an administrator"
			},
		}
	},
}

var onMariaDB = &engine{
	name: "mariadb", title: "MariaDB", dependsOn: "one MariaDB server",
	start: func(l *testserver.Lab, _ *database) *backend {
		s := testserver.MariaDB(l, testserver.MariaDBOptions{Args: []string{"--max-connections=300"}})
		return &backend{
			url: s.URL("") + leases, version: mariadbVersion(s.DSN("")),
			breakIt: func(struck func()) string {
				struck()
				s.Restart()
				return "server killed and restarted"
			},
		}
	},
}

func mariadbVersion(dsn string) (version string) {
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		return ""
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), initTimeout)
	defer cancel()
	if db.QueryRowContext(ctx, "SELECT version()").Scan(&version) != nil {
		return ""
	}
	number, _, _ := strings.Cut(version, "-")
	return "MariaDB " + number
}
