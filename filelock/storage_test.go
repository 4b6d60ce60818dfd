package filelock_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/filelock"
)

// damage overwrites n bytes of a file at off.
func damage(t *testing.T, path string, off int64, n int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(strings.Repeat("\xa5", n)), off); err != nil {
		t.Fatal(err)
	}
}

// cycle acquires and releases name and returns its fence.
func cycle(t *testing.T, e *filelock.Engine, name string) int64 {
	t.Helper()
	r := request(name)
	g := acquire(t, e, r)
	release(t, e, r.Claim(g))
	return g.Fence
}

func TestFenceSurvivesAllProcesses(t *testing.T) {
	folder := t.TempDir()
	last := int64(0)
	for range 5 {
		e := open(t, folder)
		if f := cycle(t, e, "a"); f <= last {
			t.Fatalf("fence %d after %d", f, last)
		} else {
			last = f
		}
		e.Close()
	}
}

// A machine that failed has, of the file, what was synced last, and perhaps a clock that is
// behind: numbers go on above the ceiling.
func TestRestartCountsAboveTheCeiling(t *testing.T) {
	folder := t.TempDir()
	e := open(t, folder)
	e.SetBoot("boot 1")
	first := cycle(t, e, "a")
	old, err := os.ReadFile(e.PathOf("a"))
	if err != nil {
		t.Fatal(err)
	}
	var last int64
	for range 100 {
		last = cycle(t, e, "a")
	}
	e.Close()
	if last-first > filelock.CeilingLead {
		t.Fatal("a hundred locks took a minute: the ceiling was raised")
	}
	if err := os.WriteFile(filepath.Join(folder, "names", filelock.FileName("a")), old, 0o600); err != nil {
		t.Fatal(err)
	}
	e = open(t, folder)
	e.SetBoot("boot 2")
	after := cycle(t, e, "a")
	if after < first+filelock.CeilingLead {
		t.Errorf("fence %d after the restart, ceiling was %d", after, first+filelock.CeilingLead)
	}
	// Within one run, numbers are not skipped a second time.
	if again := cycle(t, e, "a"); again <= after || again > after+1000 {
		t.Errorf("fence %d follows %d", again, after)
	}
}

// Containers on one kernel can see different boot ids. They exclude each other all the same,
// and do not drive the counter away.
func TestBootIDsThatDiffer(t *testing.T) {
	folder := t.TempDir()
	a, b := open(t, folder), open(t, folder)
	a.SetBoot("container a")
	b.SetBoot("container b")
	r := request("x")
	g := acquire(t, a, r)
	_, err := b.Acquire(patient(t), request("x"))
	wantKind(t, err, driver.Held)
	release(t, a, r.Claim(g))
	last := g.Fence
	for range 50 {
		for _, e := range []*filelock.Engine{b, a} {
			f := cycle(t, e, "x")
			if f <= last {
				t.Fatalf("fence %d after %d", f, last)
			}
			last = f
		}
	}
	if last > g.Fence+filelock.CeilingLead && last > time.Now().UnixMicro() {
		t.Errorf("fence went from %d to %d", g.Fence, last)
	}
}

func TestNoBootID(t *testing.T) {
	folder := t.TempDir()
	last := int64(0)
	for range 3 {
		e := open(t, folder)
		e.SetBoot("")
		other := open(t, folder)
		other.SetBoot("")
		for range 3 {
			for _, e := range []*filelock.Engine{e, other} {
				f := cycle(t, e, "x")
				if f <= last {
					t.Fatalf("fence %d after %d", f, last)
				}
				last = f
			}
		}
		e.Close()
		other.Close()
	}
	if lead := last - time.Now().UnixMicro(); lead > 4*filelock.CeilingLead {
		t.Errorf("the counter ran %d µs ahead", lead)
	}
}

func TestTornWrite(t *testing.T) {
	folder := t.TempDir()
	e := open(t, folder)
	path := e.PathOf("a")
	r1 := request("a")
	r1.Mode = driver.Shared
	g1 := acquire(t, e, r1) // generation 1, in slot 1
	r2 := request("a")
	r2.Mode = driver.Shared
	g2 := acquire(t, e, r2) // generation 2, in slot 0
	damage(t, path, 40, 8)
	// The process in the middle of generation 2 was killed: it is as if it had not asked.
	if infos, err := open(t, folder).List(patient(t), "", 10); err != nil || len(infos) != 1 || len(infos[0].Holders) != 1 {
		t.Errorf("List: %+v, %v", infos, err)
	}
	if err := e.Renew(patient(t), []driver.Claim{r1.Claim(g1)})[0]; err != nil {
		t.Errorf("the share of the older copy: %v", err)
	}
	wantKind(t, e.Renew(patient(t), []driver.Claim{r2.Claim(g2)})[0], driver.Lost)
	_, err := e.Acquire(patient(t), request("a"))
	wantKind(t, err, driver.Held)
	release(t, e, r1.Claim(g1))
	if f := cycle(t, e, "a"); f <= g1.Fence {
		t.Errorf("fence %d after %d", f, g1.Fence)
	}
}

func TestTornFirstWrite(t *testing.T) {
	folder := t.TempDir()
	e := open(t, folder)
	g := acquire(t, e, request("a"))
	damage(t, e.PathOf("a"), filelock.SlotSize+40, 8) // the only copy there is
	e.Close()
	e = open(t, folder)
	if again := acquire(t, e, request("a")); again.Fence < g.Fence+filelock.CeilingLead/2 {
		t.Errorf("fence %d after %d: the ceiling was forgotten", again.Fence, g.Fence)
	}
}

func TestBothCopiesDamaged(t *testing.T) {
	folder := t.TempDir()
	e := open(t, folder)
	e.SetBoot("boot 1")
	first := cycle(t, e, "a")
	path := e.PathOf("a")
	damage(t, path, 30, 8)
	damage(t, path, filelock.SlotSize+30, 8)
	e.Close() // it would know better what the file said
	e = open(t, folder)
	e.SetBoot("boot 1")
	_, err := e.Acquire(patient(t), request("a"))
	wantKind(t, err, driver.Unavailable)
	if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "delete") {
		t.Errorf("error does not say what to do about which file: %v", err)
	}
	_, err = e.Inspect(patient(t), "a")
	wantKind(t, err, driver.Unavailable)
	cycle(t, e, "b") // other names are not concerned
	e.Close()
	// After a power failure this can happen, and nobody holds anything any more.
	e = open(t, folder)
	e.SetBoot("boot 2")
	acquire(t, e, request("c"))
	if infos, err := e.List(patient(t), "", 10); err != nil || len(infos) != 1 || infos[0].Name != "c" {
		t.Errorf("List: %+v, %v", infos, err)
	}
	if f := cycle(t, e, "a"); f < first+filelock.CeilingLead {
		t.Errorf("fence %d is not above the ceiling of %d", f, first)
	}
}

func TestDamagedCeiling(t *testing.T) {
	folder := t.TempDir()
	e := open(t, folder)
	first := cycle(t, e, "a")
	damage(t, e.PathOf("a"), filelock.CeilingAt, 600)
	if f := cycle(t, e, "a"); f <= first {
		t.Errorf("fence %d after %d", f, first)
	}
}

func TestNewerFormat(t *testing.T) {
	e := open(t, t.TempDir())
	cycle(t, e, "a")
	damage(t, e.PathOf("a"), 4, 1)
	_, err := e.Acquire(patient(t), request("a"))
	wantKind(t, err, driver.Unsupported)
	if !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("no remedy in %v", err)
	}
}

func TestFileOfAnotherName(t *testing.T) {
	e := open(t, t.TempDir())
	cycle(t, e, "a")
	cycle(t, e, "b")
	if err := os.Rename(e.PathOf("b"), e.PathOf("a")); err != nil {
		t.Fatal(err)
	}
	_, err := e.Acquire(patient(t), request("a"))
	wantKind(t, err, driver.Unavailable)
	if !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("the other name is not in %v", err)
	}
}

// Deleting the file of a name that is held breaks the lock. Its holder is told, and those
// who come later exclude each other.
func TestDeletedFile(t *testing.T) {
	folder := t.TempDir()
	for what, remove := range map[string]func(string) error{
		"deleted": os.Remove,
		"moved":   func(path string) error { return os.Rename(path, filepath.Join(folder, "elsewhere")) },
		"emptied": func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(what, func(t *testing.T) {
			a, b, c := open(t, folder), open(t, folder), open(t, folder)
			r := request(what)
			g := acquire(t, a, r)
			if err := remove(a.PathOf(what)); err != nil {
				t.Fatal(err)
			}
			wantKind(t, a.Renew(patient(t), []driver.Claim{r.Claim(g)})[0], driver.Lost)
			again := request(what)
			if g2 := acquire(t, b, again); g2.Fence <= g.Fence {
				t.Errorf("fence %d after %d", g2.Fence, g.Fence)
			}
			for _, e := range []*filelock.Engine{a, c} {
				_, err := e.Acquire(patient(t), request(what))
				wantKind(t, err, driver.Held)
			}
			wantKind(t, a.Release(patient(t), r.Claim(g)), driver.NotHeld)
			_, err := c.Acquire(patient(t), request(what))
			wantKind(t, err, driver.Held)
		})
	}
}

// A member whose file is gone is dead to the others. It notices, and goes on as a new one.
func TestDeletedMember(t *testing.T) {
	folder := t.TempDir()
	a, b := open(t, folder), open(t, folder)
	r := request("x")
	g := acquire(t, a, r)
	if err := os.Remove(a.MemberPath()); err != nil {
		t.Fatal(err)
	}
	acquire(t, b, request("x"))
	wantKind(t, a.Renew(patient(t), []driver.Claim{r.Claim(g)})[0], driver.Lost)
	_, err := a.Acquire(patient(t), request("x"))
	wantKind(t, err, driver.Held)
	acquire(t, a, request("y"))
	_, err = b.Acquire(patient(t), request("y"))
	wantKind(t, err, driver.Held)
}

func TestDeletedFolder(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "locks")
	a := open(t, folder)
	r := request("x")
	g := acquire(t, a, r)
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	wantKind(t, a.Renew(patient(t), []driver.Claim{r.Claim(g)})[0], driver.Lost)
	b := open(t, folder)
	acquire(t, a, request("x"))
	_, err := b.Acquire(patient(t), request("x"))
	wantKind(t, err, driver.Held)
}

func TestStaleMembersAreSwept(t *testing.T) {
	folder := t.TempDir()
	members := filepath.Join(folder, "members")
	if err := os.MkdirAll(members, 0o700); err != nil {
		t.Fatal(err)
	}
	dead := strings.Repeat("a", 26)
	for _, name := range []string{dead, dead + ".inbox", "bbbbbbbbbbbbbbbbbbbbbbbbba.inbox", "README"} {
		if err := os.WriteFile(filepath.Join(members, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	other := open(t, folder)
	e := open(t, folder)
	files, _ := os.ReadDir(members)
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	if len(names) != 3 { // two members and what is not ours
		t.Errorf("left in members: %v", names)
	}
	acquire(t, other, request("a"))
	_, err := e.Acquire(patient(t), request("a"))
	wantKind(t, err, driver.Held)
}

// A crowd does not fit into a slot; the state then moves into a body and back.
func TestManyShares(t *testing.T) {
	folder := t.TempDir()
	a, b := open(t, folder), open(t, folder)
	var claims []driver.Claim
	for range 300 {
		for _, e := range []*filelock.Engine{a, b} {
			r := inMode(request("crowd"), driver.Shared)
			r.Owner = strings.Repeat("o", 100)
			claims = append(claims, r.Claim(acquire(t, e, r)))
		}
	}
	_, err := a.Acquire(patient(t), request("crowd"))
	wantKind(t, err, driver.Held)
	info, err := b.Inspect(patient(t), "crowd")
	if err != nil || len(info.Holders) != len(claims) {
		t.Fatalf("%d holders, %v", len(info.Holders), err)
	}
	for i, err := range a.Renew(patient(t), []driver.Claim{claims[0], claims[2]}) {
		if err != nil {
			t.Errorf("claim %d: %v", i, err)
		}
	}
	for _, c := range claims { // whoever releases, the token counts
		release(t, b, c)
	}
	cycle(t, a, "crowd")
}

func TestTooManyShares(t *testing.T) {
	folder := t.TempDir()
	e, other := open(t, folder), open(t, folder)
	if err := e.Crowd("crowd", filelock.MaxShares-1); err != nil {
		t.Fatal(err)
	}
	last := inMode(request("crowd"), driver.Shared)
	g := acquire(t, other, last)
	_, err := e.Acquire(patient(t), inMode(request("crowd"), driver.Shared))
	wantKind(t, err, driver.Unavailable)
	if info, err := other.Inspect(patient(t), "crowd"); err != nil || len(info.Holders) != filelock.MaxShares {
		t.Errorf("%d holders, %v", len(info.Holders), err)
	}
	release(t, other, last.Claim(g))
	e.Close()
	acquire(t, other, request("crowd"))
}
