package fence_test

import (
	"strings"
	"testing"

	"github.com/holdfast-go/holdfast/fence"
)

func TestSQLBadSettings(t *testing.T) {
	_, err := fence.NewSQL(0, fence.SQLConfig{Table: "fences; drop table accounts"})
	wantInvalid(t, err, "dialect", "Table")
	_, err = fence.NewSQL(9, fence.SQLConfig{})
	wantInvalid(t, err, "dialect")
	for _, table := range []string{"a b", "a.b.c", ".b", "a.", "1a", `a"b`, "a`b", "a'b", "ü", strings.Repeat("x", 64), "a\n"} {
		_, err := fence.NewSQL(fence.PostgreSQL, fence.SQLConfig{Table: table})
		wantInvalid(t, err, "Table")
	}
}

func TestSQLTable(t *testing.T) {
	for d, want := range map[fence.Dialect]string{
		fence.PostgreSQL: "CREATE TABLE IF NOT EXISTS \"app\".\"Fences\" (\n\tname text COLLATE \"C\" NOT NULL PRIMARY KEY,\n\tfence bigint NOT NULL,\n\tuses bigint NOT NULL\n)",
		fence.MySQL:      "CREATE TABLE IF NOT EXISTS `app`.`Fences` (\n\tname VARBINARY(512) NOT NULL PRIMARY KEY,\n\tfence bigint NOT NULL,\n\tuses bigint NOT NULL\n) ENGINE=InnoDB",
		fence.SQLite:     "CREATE TABLE IF NOT EXISTS \"app\".\"Fences\" (\n\tname TEXT NOT NULL PRIMARY KEY,\n\tfence INTEGER NOT NULL,\n\tuses INTEGER NOT NULL\n)",
	} {
		s, err := fence.NewSQL(d, fence.SQLConfig{Table: "app.Fences"})
		must(t, err)
		if got := s.DDL(); got != want {
			t.Errorf("%v: %s", d, got)
		}
	}
}
