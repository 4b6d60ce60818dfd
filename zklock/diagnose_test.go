package zklock_test

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/testserver"
)

func testDiagnose(t *testing.T, s *testserver.ZooKeeperServer) {
	l := newLab(t, s.Addr(), patient)
	d, err := l.open().Diagnose(l.context(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if d.Worst() > driver.LevelNote {
		t.Errorf("findings on a server that is well: %+v", d.Findings)
	}
	if len(d.Facts) == 0 || !strings.Contains(d.Facts[0].Value, "standalone") {
		t.Errorf("facts: %+v", d.Facts)
	}
	children, _, err := l.admin.Children(l.cfg.Root)
	if err != nil || len(children) > 0 {
		t.Errorf("it left %q, %v", children, err)
	}
	if d, err = l.open().Diagnose(l.context(), time.Minute); err != nil || d.Worst() != driver.LevelProblem {
		t.Errorf("with a TTL that the session does not carry: %+v, %v", d.Findings, err)
	}
}
