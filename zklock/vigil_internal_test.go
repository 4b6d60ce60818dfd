package zklock

import (
	"slices"
	"strconv"
	"testing"
)

// kept begins a vigil and answers its request.
func (s *spoken) kept(own string, ahead ...string) *vigil {
	s.Helper()
	begun := make(chan *vigil, 1)
	go func() { begun <- s.wire.keep(own, ahead) }()
	xid, op, body := s.hear()
	if op != opSetWatches || string(body[:8]) != "\x7f\xff\xff\xff\xff\xff\xff\xff" {
		s.Errorf("opcode %d since %x, want %d since no transaction that there is", op, body[:8], opSetWatches)
	}
	paths, err := answer{body: body[8:]}.texts()
	if want := append(slices.Clone(ahead[max(0, len(ahead)-maxAhead):]), own); err != nil || !slices.Equal(paths, want) {
		s.Errorf("watched are %q, %v, want %q", paths, err, want)
	}
	s.say(xid, 1, 0, nil)
	return <-begun
}

// settled returns when the server's words have been heard.
func (s *spoken) settled() {
	s.Helper()
	s.passes(s.say(1, 1, 0, nil))
}

// hears wants v to have told its owner, or not.
func (s *spoken) hears(v *vigil, want bool) {
	s.Helper()
	s.settled()
	if heard := len(v.heard) > 0; heard != want {
		s.Fatalf("there is news: %v, want %v", heard, want)
	}
}

// TestVigilHearsAll: there is news when all ahead have gone, in whatever order, and not before.
func TestVigilHearsAll(t *testing.T) {
	s := speak(t)
	p := &place{dir: "/n", names: []string{"own"}, children: []string{"b", "own", "a", "behind"}}
	v := s.kept("/n/own", "/n/a", "/n/b")
	s.happens(eventDeleted, "/n/b") // gave up, while a holds
	s.happens(eventDeleted, "/n/b")
	s.hears(v, false)
	if v.shorten(p) {
		t.Error("one that is left ahead is not looked for")
	}
	s.happens(eventDeleted, "/n/a")
	s.hears(v, true)
	if !v.shorten(p) || !slices.Equal(p.children, []string{"own", "behind"}) {
		t.Errorf("left are %q", p.children)
	}
	v.end()
	s.passes(s.happens(eventDeleted, "/n/own")) // to nobody of ours
}

// TestVigilHearsOfItsOwn: at once, whoever is ahead.
func TestVigilHearsOfItsOwn(t *testing.T) {
	s := speak(t)
	p := &place{dir: "/n", names: []string{"own"}, children: []string{"own", "a"}}
	v := s.kept("/n/own", "/n/a")
	s.happens(eventDeleted, "/n/own")
	s.hears(v, true)
	if !v.shorten(p) || !slices.Equal(p.children, []string{"a"}) {
		t.Errorf("left are %q", p.children)
	}
}

// TestVigilUsedUp: a watch that told of a change tells nothing more, so the request looks again.
func TestVigilUsedUp(t *testing.T) {
	const eventChanged = 3
	for _, path := range []string{"/n/own", "/n/a"} {
		s := speak(t)
		p := &place{dir: "/n", names: []string{"own"}, children: []string{"own", "a"}}
		v := s.kept("/n/own", "/n/a")
		s.happens(eventChanged, path)
		s.hears(v, true)
		s.happens(eventDeleted, "/n/a")
		s.settled()
		if v.shorten(p) || v.covers([]string{"/n/a"}) {
			t.Errorf("the vigil goes on though the watch on %s is used up", path)
		}
	}
}

// TestVigilOnTheNearest: with many ahead the nearest are watched, and then is looked again.
func TestVigilOnTheNearest(t *testing.T) {
	s := speak(t)
	p := &place{dir: "/n", names: []string{"own"}, children: []string{"own"}}
	var ahead []string
	for i := range maxAhead + 1 {
		name := strconv.Itoa(i)
		p.children, ahead = append(p.children, name), append(ahead, "/n/"+name)
	}
	v := s.kept("/n/own", ahead...)
	for _, path := range ahead[1:] {
		s.hears(v, false)
		s.happens(eventDeleted, path)
	}
	s.hears(v, true)
	if v.shorten(p) {
		t.Error("nobody looks what has become of the first")
	}
	if v.covers(ahead[:1]) || !v.covers(ahead) {
		t.Error("what is watched is mistaken")
	}
}

// TestVigilsShareANode: each is told, and the library where it watches as well.
func TestVigilsShareANode(t *testing.T) {
	s := speak(t)
	one, two := s.kept("/n/1", "/library's"), s.kept("/n/2", "/library's")
	s.passes(s.happens(eventDeleted, "/library's"))
	s.hears(one, true)
	s.hears(two, true)
	one.end()
	s.happens(eventDeleted, "/n/2") // for the other only, and not passed on
	s.settled()
	two.end()
	if n := len(s.wire.vigils); n != 0 {
		t.Errorf("%d vigils are left", n)
	}
}
