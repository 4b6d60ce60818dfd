package fence_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/fence"
	"github.com/holdfast-go/holdfast/memlock"
)

// The lock and what it protects are in one PostgreSQL: pglock (imported for its scheme) keeps
// holders apart, and the guard keeps out the one that wakes up late. The whole update is one
// transaction, which Open begins: it needs no Check.
func ExampleSQL() {
	ctx := context.Background()
	const url = "postgres://app@127.0.0.1:5432/app"
	db, err := sql.Open("pgx", url)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	hf, err := holdfast.Open(ctx, url, holdfast.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer hf.Close()
	guard, err := fence.NewSQL(fence.PostgreSQL, fence.SQLConfig{})
	if err != nil {
		log.Fatal(err)
	}
	if err := guard.Init(ctx, db); err != nil {
		log.Fatal(err)
	}

	err = hf.Mutex("invoice:2026").Do(ctx, func(ctx context.Context, l *holdfast.Lease) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if err := guard.Open(ctx, tx, l); err != nil {
			return err
		}
		var last int64
		if err := tx.QueryRowContext(ctx, "SELECT max(number) FROM invoices").Scan(&last); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO invoices (number) VALUES ($1)", last+1); err != nil {
			return err
		}
		return tx.Commit()
	})
	if errors.Is(err, holdfast.ErrStale) {
		log.Print("overtaken: nothing was written, begin again")
	}
}

// Where reading and writing are far apart, Open counts at once, and each transaction that
// writes begins or ends with a Check.
func ExampleSQL_Check() {
	var (
		ctx   = context.Background()
		db    *sql.DB
		lease *holdfast.Lease
		guard *fence.SQL
	)
	if err := guard.Open(ctx, db, lease); err != nil { // before the first read
		log.Fatal(err)
	}
	// … read, compute, ask others …
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer tx.Rollback()
	if err := guard.Check(ctx, tx, lease); err != nil {
		log.Fatal(err)
	}
	if _, err := tx.ExecContext(ctx, "UPDATE account SET balance = $1 WHERE id = $2", 90, 7); err != nil {
		log.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		log.Fatal(err)
	}
}

// The statement for a migration.
func ExampleSQL_DDL() {
	guard, err := fence.NewSQL(fence.MySQL, fence.SQLConfig{Table: "app.fences"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(guard.DDL())
	// Output:
	// CREATE TABLE IF NOT EXISTS `app`.`fences` (
	// 	name VARBINARY(512) NOT NULL PRIMARY KEY,
	// 	fence bigint NOT NULL,
	// 	uses bigint NOT NULL
	// ) ENGINE=InnoDB
}

// The second holder has opened the file when the first one wakes up and writes.
func ExampleFile() {
	ctx := context.Background()
	folder, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	guard, err := fence.NewFile(filepath.Join(folder, "state.json"), fence.FileConfig{})
	if err != nil {
		log.Fatal(err)
	}

	first, second := fence.Of("state", 33), fence.Of("state", 34) // leases, as Lock returns them
	fmt.Println(guard.Open(ctx, first))
	fmt.Println(guard.Open(ctx, second)) // and now it reads
	err = guard.Write(ctx, first, []byte("late"))
	fmt.Println(errors.Is(err, holdfast.ErrStale))
	fmt.Println(guard.Write(ctx, second, []byte("in time")))
	// Output:
	// <nil>
	// <nil>
	// true
	// <nil>
}

// A counter behind a web server. The reading registers the holder, the writing is checked.
func ExampleHTTP() {
	guard, err := fence.NewHTTP(new(fence.Memory), fence.HTTPConfig{})
	if err != nil {
		log.Fatal(err)
	}
	count := 41
	server := httptest.NewServer(guard.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			body, _ := io.ReadAll(r.Body)
			count, _ = strconv.Atoi(string(body))
		}
		fmt.Fprint(w, count)
	})))
	defer server.Close()

	hf, err := holdfast.New(memlock.New(memlock.Config{}), holdfast.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer hf.Close()
	client := http.Client{Transport: &fence.Transport{}}
	err = hf.Mutex("counter").Do(context.Background(), func(ctx context.Context, l *holdfast.Lease) error {
		ctx = fence.NewContext(ctx, l)
		for _, r := range []struct{ method, body string }{{"GET", ""}, {"PUT", "42"}} {
			request, err := http.NewRequestWithContext(ctx, r.method, server.URL, strings.NewReader(r.body))
			if err != nil {
				return err
			}
			response, err := client.Do(request)
			if err != nil {
				return err
			}
			defer response.Body.Close()
			if err := fence.ResponseError(response); err != nil {
				return err
			}
		}
		return nil
	})
	fmt.Println(err, count)

	late, err := http.NewRequestWithContext(fence.NewContext(context.Background(), fence.Of("counter", 1)),
		"PUT", server.URL, strings.NewReader("0"))
	if err != nil {
		log.Fatal(err)
	}
	response, err := client.Do(late)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	fmt.Println(response.Status, errors.Is(fence.ResponseError(response), holdfast.ErrStale), count)
	// Output:
	// <nil> 42
	// 412 Precondition Failed true 42
}

// A command under `holdfast run` has the numbers of the lease in its environment.
func ExampleOf() {
	n, err := strconv.ParseInt(os.Getenv("HOLDFAST_FENCE"), 10, 64)
	if err != nil {
		log.Fatal("not under holdfast run: ", err)
	}
	guard, err := fence.NewFile("/srv/app/state.json", fence.FileConfig{})
	if err != nil {
		log.Fatal(err)
	}
	if err := guard.Open(context.Background(), fence.Of(os.Getenv("HOLDFAST_NAME"), n)); err != nil {
		log.Fatal(err)
	}
}
