package zklock

import "slices"

// vigil hears, on one connection, of the deletion of every node that a request waits for, and
// of its own. With that a request needs no second look when its turn comes: all that was older
// than its node is in the list that it has seen, or was gone by then.
//
// What was heard is true whatever becomes of the connection. But what is not heard of is there
// only while the connection lasts and no watch is used up by another change: from then on the
// vigil is over, and the request has to look again.
type vigil struct {
	wire  *wire
	paths []string // of all of them
	own   string
	heard chan struct{} // holds one when there is news
	more  bool          // there were further ones ahead of those

	// Guarded by wire.mu.
	gone map[string]bool
	left int // of the nodes ahead
	over bool
}

// maxAhead is how many nodes ahead a vigil watches, the nearest. Whoever has more before it
// looks again when these are gone: otherwise each of many deletions would wake all of many.
const maxAhead = 8

// keep begins a vigil on nodes that were seen on w. It need not be answered: a watch that is
// not set because of the end of the connection ends the vigil, and one that the server refuses
// leaves it to the poll.
func (w *wire) keep(own string, ahead []string) *vigil {
	near := ahead[max(0, len(ahead)-maxAhead):]
	paths := append(slices.Clone(near), own)
	v := &vigil{
		wire: w, paths: paths, own: own, more: len(near) < len(ahead),
		heard: make(chan struct{}, 1), gone: make(map[string]bool), left: len(near),
	}
	w.mu.Lock()
	for _, path := range paths {
		if w.vigils[path] == nil {
			w.vigils[path] = make(map[*vigil]struct{})
		}
		w.vigils[path][v] = struct{}{}
	}
	if w.dead {
		v.spoil()
	}
	w.mu.Unlock()
	w.ask(vigilCall(paths))
	return v
}

// end forgets a vigil. The server tells of the nodes nevertheless, once each, to nobody.
func (v *vigil) end() {
	if v == nil {
		return
	}
	v.wire.mu.Lock()
	defer v.wire.mu.Unlock()
	for _, path := range v.paths {
		delete(v.wire.vigils[path], v)
		if len(v.wire.vigils[path]) == 0 {
			delete(v.wire.vigils, path)
		}
	}
}

// spoil ends what can be concluded from silence. wire.mu is locked.
func (v *vigil) spoil() {
	v.over = true
	v.tell()
}

func (v *vigil) tell() {
	select {
	case v.heard <- struct{}{}:
	default:
	}
}

// eventDeleted is the event of a node that was deleted.
const eventDeleted = 2

// happened passes an event on to the vigils on its node, and reports whether there are any.
func (w *wire) happened(kind int32, path string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for v := range w.vigils[path] {
		switch {
		case kind != eventDeleted:
			v.spoil()
		case path == v.own:
			v.gone[path] = true
			v.tell()
		case !v.gone[path]:
			v.gone[path] = true
			if v.left--; v.left == 0 {
				v.tell()
			}
		}
	}
	return len(w.vigils[path]) > 0
}

// covers reports whether the nearest of those nodes is watched still.
func (v *vigil) covers(ahead []string) bool {
	if v == nil || !slices.Contains(v.paths, ahead[len(ahead)-1]) {
		return false
	}
	v.wire.mu.Lock()
	defer v.wire.mu.Unlock()
	return !v.over
}

// shorten takes from the children that p has seen what has gone since, and reports whether it
// need not look again.
func (v *vigil) shorten(p *place) bool {
	if v == nil {
		return false
	}
	v.wire.mu.Lock()
	defer v.wire.mu.Unlock()
	if len(v.gone) == 0 || v.over {
		return false
	}
	p.children = slices.DeleteFunc(p.children, func(name string) bool { return v.gone[p.dir+"/"+name] })
	return v.gone[v.own] || v.left == 0 && !v.more
}
