package mysqllock

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/holdfast-go/holdfast/driver"
)

// quoted returns the table's name for use in statements.
func (c Config) quoted() string { return "`" + strings.ReplaceAll(c.Table, ".", "`.`") + "`" }

// Columns of the table. The row with the empty key is the counter of fences, see fences; its weight
// says that there ever was a permit. Every other row is a share or, with the key of its mark and
// without a name, a session, and counts for as long as the connection that it names holds the
// GET_LOCK of its key. Rows of permits are written when they are taken, those of locks that are held
// for longer than a moment when there is time; all are taken away when there is time.
const columns = "k,fence,since,conn,grp,weight,lim,span,owner,name"

func (c Config) createTable() string {
	return "CREATE TABLE IF NOT EXISTS " + c.quoted() + ` (
  k VARBINARY(64) NOT NULL PRIMARY KEY COMMENT 'name of the GET_LOCK; empty: the fence counter',
  fence BIGINT NOT NULL COMMENT 'the last number of the share, or the last that the counter reserved',
  since BIGINT NOT NULL COMMENT 'microseconds since 1970; of the counter: what tickets are raised by',
  conn BIGINT UNSIGNED NOT NULL COMMENT 'the connection that holds it; of the counter: the process of the server',
  grp VARBINARY(64) NOT NULL COMMENT 'of a permit: the key of its semaphore',
  weight INT NOT NULL,
  lim INT NOT NULL,
  span INT NOT NULL COMMENT 'how many numbers the share has',
  owner VARBINARY(1024) NOT NULL,
  name VARBINARY(512) NOT NULL,
  broken TINYINT NOT NULL DEFAULT 0 COMMENT 'the holder is asked to let go',
  KEY (grp), KEY (conn)
) ENGINE=InnoDB`
}

func (c Config) createCounter(f fences) string {
	weight := 0
	if f.permits {
		weight = 1
	}
	return fmt.Sprintf("INSERT IGNORE INTO %s (%s) VALUES ('',%d,%d,%d,'',%d,0,0,'','')", c.quoted(), columns, f.ceiling, f.offset, f.server, weight)
}

// Setup returns the SQL that makes what an engine with that Config needs, for those who keep the
// right to do so from the user that locks, with the rights that such a user needs then: replace
// 'user'@'%'. New carries out all but the last part by itself where it may. It can be repeated.
// GET_LOCK itself needs no right.
func Setup(cfg Config) string {
	cfg = cfg.withDefaults()
	const rights = "GRANT SELECT, INSERT, UPDATE, DELETE ON "
	all := []string{cfg.createTable(), cfg.createCounter(fences{})}
	values, err := cfg.quotedValues()
	if err == nil {
		all = append(all, createValues(values), createFloor(values))
	}
	all = append(all, rights+cfg.quoted()+" TO 'user'@'%'")
	if err == nil {
		all = append(all, rights+values+" TO 'user'@'%'")
	}
	return strings.Join(all, ";\n") + ";"
}

// settleSchema sees to it that there is the table, and the counter in it: where that is gone, as the
// session knew it.
func (s *session) settleSchema() error {
	var counters int
	err := s.query("SELECT COUNT(*) FROM "+s.e.cfg.quoted()+" WHERE k=''", &counters)
	if err == nil && counters == 1 {
		return nil
	}
	if err != nil && codeOf(err) != codeNoTable {
		return err
	}
	for _, text := range []string{s.e.cfg.createTable(), s.e.cfg.createCounter(s.fences)} {
		if _, err := s.exec(text, 0); err != nil {
			return err
		}
	}
	return nil
}

var versionText = regexp.MustCompile(`^(\d+)\.(\d+)\.(\d+)`)

// checkVersion refuses servers whose sessions hold one GET_LOCK only: a second one would free
// the first.
func checkVersion(version string) error {
	v, maria := strings.TrimPrefix(version, "5.5.5-"), strings.Contains(version, "MariaDB")
	m := versionText.FindStringSubmatch(v)
	if m == nil {
		return driver.Failf(driver.Unsupported, "the server says that it is %.64q: MySQL 5.7 or later, or MariaDB 10.0.2 or later, is needed", version)
	}
	at := 0
	for _, part := range m[1:] {
		n, _ := strconv.Atoi(part)
		at = at*1000 + min(n, 999)
	}
	if maria && at < 10_000_002 || !maria && at < 5_007_000 {
		return driver.Failf(driver.Unsupported, "the server is %.64s, where a session holds one GET_LOCK only: MySQL 5.7 or later, or MariaDB 10.0.2 or later, is needed", version)
	}
	return nil
}

// variables returns settings of the server, by name in lower case.
func (s *session) variables(ctx context.Context, names ...string) (map[string]string, error) {
	rows, err := s.conn.QueryContext(ctx, "SHOW VARIABLES WHERE Variable_name IN ('"+strings.Join(names, "','")+"')")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := make(map[string]string)
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return nil, err
		}
		found[strings.ToLower(name)] = value
	}
	return found, rows.Err()
}

// checkNode refuses nodes whose locks the others do not know.
func checkNode(v map[string]string, single bool) error {
	what := ""
	switch {
	case strings.EqualFold(v["wsrep_on"], "ON"):
		what = "a node of a Galera cluster"
	case v["group_replication_group_name"] != "" && strings.EqualFold(v["group_replication_single_primary_mode"], "OFF"):
		what = "one of several primaries of a group"
	}
	if what == "" || single {
		return nil
	}
	return driver.Fail(driver.Unsupported, fmt.Errorf("the server is %s, and a GET_LOCK is known to its own node only: "+
		"where all clients talk to one node, set Config.SingleNode (single-node=on in the URL); otherwise use another engine", what))
}
