package namemap

import (
	"fmt"
	"testing"
)

func TestNamesInUseAreKept(t *testing.T) {
	var m Map[int]
	a := m.Open("a")
	a.Value = 7
	for i := range 1000 {
		m.Close(m.Open(fmt.Sprint(i)))
	}
	if got := m.Open("a"); got != a || got.Value != 7 {
		t.Fatalf("the entry in use was forgotten: %+v", got)
	}
	if m.Len() > 1+idleKept {
		t.Errorf("%d entries are left of a thousand unused names", m.Len())
	}
}

func TestUnusedNamesAreForgotten(t *testing.T) {
	var m Map[int]
	a := m.Open("a")
	m.Close(a)
	if m.Find("a") != nil {
		t.Error("a name that nobody uses was found")
	}
	if m.Open("a") != a {
		t.Error("a name that is used again at once was forgotten")
	}
	m.Close(a)
	for i := range 2 * idleKept {
		m.Close(m.Open(fmt.Sprint(i)))
	}
	if m.Open("a"); m.Find("a").Name != "a" || a.Name == "a" && m.Find("a") != a {
		t.Error("two entries of one name")
	}
}

func TestReuseOfAnIdleEntryKeepsItsPlace(t *testing.T) {
	var m Map[int]
	a := m.Open("a")
	for range 100 {
		m.Close(a)
		if m.Open("a") != a {
			t.Fatal("the idle entry is gone")
		}
	}
	for i := range 2 * idleKept {
		m.Close(m.Open(fmt.Sprint(i)))
	}
	if m.Find("a") != a {
		t.Fatal("an entry in use was forgotten when its idle place was taken")
	}
	m.Close(a)
	if m.Find("a") != nil {
		t.Error("closed by its last user, it is still in use")
	}
}
