package filelock_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
)

func TestBreak(t *testing.T) {
	folder := t.TempDir()
	a, b := open(t, folder), open(t, folder)
	_, err := b.Break(patient(t), driver.BreakRequest{Name: "a"})
	wantKind(t, err, driver.NotHeld)
	r := request("a")
	r.Owner = "owner \"1\""
	g := acquire(t, a, r)
	c := acquireAsync(patient(t), b, waiting(request("a")))
	awaitWaiters(t, a, "a", 1)
	_, err = b.Break(patient(t), driver.BreakRequest{Name: "a", Fence: g.Fence + 1})
	wantKind(t, err, driver.Stale)
	info, err := b.Break(patient(t), driver.BreakRequest{Name: "a", Fence: g.Fence, By: "admin", Reason: "stuck\nfor hours"})
	if err != nil || len(info.Holders) != 1 || info.Holders[0].Fence != g.Fence {
		t.Fatalf("%+v, %v", info, err)
	}
	if res := await(t, c); res.err != nil || res.grant.Fence <= g.Fence {
		t.Errorf("fence %d after %d, %v", res.grant.Fence, g.Fence, res.err)
	}
	wantKind(t, a.Renew(patient(t), []driver.Claim{r.Claim(g)})[0], driver.Lost)
	line, err := os.ReadFile(filepath.Join(folder, "breaks.log"))
	if err != nil {
		t.Fatal(err)
	}
	var entry struct {
		By, Name, Reason string
		Holders          []struct {
			Owner string
			Fence int64
		}
	}
	if err := json.Unmarshal(line, &entry); err != nil || entry.By != "admin" || entry.Reason != "stuck\nfor hours" ||
		entry.Name != "a" || len(entry.Holders) != 1 || entry.Holders[0].Fence != g.Fence || entry.Holders[0].Owner != r.Owner {
		t.Errorf("record %s, %v", line, err)
	}
}

func TestInspect(t *testing.T) {
	folder := t.TempDir()
	a, b := open(t, folder), open(t, folder)
	if info, err := b.Inspect(patient(t), "a"); err != nil || len(info.Holders) != 0 || info.Waiters != 0 {
		t.Fatalf("%+v, %v", info, err)
	}
	if _, err := os.Stat(b.PathOf("a")); err == nil {
		t.Error("looking at a name made its file")
	}
	r := request("a")
	g := acquire(t, a, r)
	info, err := b.Inspect(patient(t), "a")
	if err != nil || len(info.Holders) != 1 || info.Holders[0].Owner != "test" || info.Holders[0].Fence != g.Fence ||
		time.Since(info.Holders[0].Since) > time.Hour || !info.Holders[0].Until.IsZero() {
		t.Fatalf("%+v, %v", info, err)
	}
	acquire(t, a, request("ab"))
	acquire(t, a, request("b"))
	cycle(t, a, "free")
	infos, err := b.List(patient(t), "a", 10)
	if err != nil || len(infos) != 2 || infos[0].Name != "a" || infos[1].Name != "ab" {
		t.Errorf("%+v, %v", infos, err)
	}
	if infos, err := b.List(patient(t), "", 1); err != nil || len(infos) != 1 {
		t.Errorf("%+v, %v", infos, err)
	}
	a.Close()
	if infos, err := b.List(patient(t), "", 10); err != nil || len(infos) != 0 {
		t.Errorf("what the dead held is listed: %+v, %v", infos, err)
	}
}
