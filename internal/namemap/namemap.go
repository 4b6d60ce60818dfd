// Package namemap keeps something for every name that is in use, and forgets names that are
// not: a million of them leave nothing behind but a handful that may be used again at once.
package namemap

// idleKept is how many unused entries a map keeps. Locking one name over and over then costs
// no insertion and no deletion.
const idleKept = 4

// Map holds an entry for every name in use. Its zero value is empty. It is not safe for
// concurrent use.
type Map[T any] struct {
	entries map[string]*Entry[T]
	idle    [idleKept]*Entry[T] // unused, or used again since they were put here
	next    int                 // place in idle that is taken next
	last    *Entry[T]           // the one opened last: often the next as well
	spare   *Entry[T]           // the last one that was forgotten, to be made new again
}

// Entry is what a map keeps for one name.
type Entry[T any] struct {
	Name  string
	Value T

	users  int
	idling bool // has a place in idle
	known  bool // is in the map
}

// Open returns the entry of name and counts the caller as its user, until Close.
func (m *Map[T]) Open(name string) *Entry[T] {
	e := m.last
	if e == nil || !e.known || e.Name != name {
		if e = m.entries[name]; e == nil {
			e = m.add(name)
		}
		m.last = e
	}
	e.users++
	return e
}

// Share counts one more user of an open entry.
func (e *Entry[T]) Share() { e.users++ }

// Find returns the entry of name, or nil when it is not in use.
func (m *Map[T]) Find(name string) *Entry[T] {
	if e := m.entries[name]; e != nil && e.users > 0 {
		return e
	}
	return nil
}

// Close ends one use of e. With the last one, the entry's value must be as good as new.
func (m *Map[T]) Close(e *Entry[T]) {
	if e.users--; e.users > 0 || e.idling {
		return
	}
	old := m.idle[m.next]
	m.idle[m.next], e.idling = e, true
	m.next = (m.next + 1) % idleKept
	if old == nil {
		return
	}
	old.idling = false
	if old.users == 0 {
		delete(m.entries, old.Name)
		old.known = false
		m.spare = old
	}
}

// All calls f with every entry in use until f returns false. f may close entries.
func (m *Map[T]) All(f func(*Entry[T]) bool) {
	for _, e := range m.entries {
		if e.users > 0 && !f(e) {
			return
		}
	}
}

// Len returns how many entries there are, unused ones included.
func (m *Map[T]) Len() int { return len(m.entries) }

func (m *Map[T]) add(name string) *Entry[T] {
	if m.entries == nil {
		m.entries = make(map[string]*Entry[T])
	}
	e := m.spare
	if m.spare = nil; e == nil {
		e = new(Entry[T])
	}
	e.Name, e.known = name, true
	m.entries[name] = e
	return e
}
