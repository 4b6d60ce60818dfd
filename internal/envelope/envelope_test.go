package envelope_test

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/internal/envelope"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// seal writes over was.
func seal(w driver.Write, was driver.Value) envelope.Envelope {
	e := envelope.Seal(&w, was)
	e.Note = "note"
	return e
}

func TestRoundTrip(t *testing.T) {
	for _, data := range []string{"", "\n", "holdfast value 1 2 3 4 5\n", "a b\x00\xff"} {
		e := seal(driver.Write{Data: []byte(data), Fence: driver.MaxFence, TTL: time.Second}, driver.Value{Now: noon})
		got, err := envelope.Decode(e.Encode())
		if len(data) == 0 {
			got.Data, e.Data = nil, nil
		}
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("%+v was read back as %+v, %v", e, got, err)
		}
	}
}

func TestForeignIsRefused(t *testing.T) {
	for _, stored := range []string{
		"", "x", "holdfast value 1", "holdfast value 1\n", "holdfast value 1 1 2 3\n", "holdfast value 1 1 2 3 \n",
		"holdfast value 1 1 2 3 note", "holdfast value 1 1 2 3 note more\n", "holdfast value 1 -1 2 3 note\n",
		"holdfast value 1 1 2 x note\n", "holdfast value 2 1 2 3 note\n", "holdfast value 1 99999999999999999999 2 3 n\n",
	} {
		if e, err := envelope.Decode([]byte(stored)); err == nil {
			t.Errorf("%q was read as %+v", stored, e)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("holdfast value 1 1 2 3 note\ndata"))
	f.Fuzz(func(t *testing.T, stored []byte) {
		e, err := envelope.Decode(stored)
		if err != nil {
			return
		}
		again, err := envelope.Decode(e.Encode())
		if err != nil || again.Fence != e.Fence || again.Until != e.Until || again.Note != e.Note || !bytes.Equal(again.Data, e.Data) {
			t.Errorf("%+v was read back as %+v, %v", e, again, err)
		}
	})
}

func TestTTL(t *testing.T) {
	e := seal(driver.Write{Data: []byte("x"), TTL: time.Second}, driver.Value{Now: noon})
	for _, c := range []struct{ after, left time.Duration }{
		{0, time.Second}, {time.Second - time.Microsecond, time.Microsecond}, {time.Second, 0}, {time.Hour, 0},
		{-time.Hour, time.Second}, // a clock that is behind: no more than the TTL is left
	} {
		v := e.Value(7, noon.Add(c.after))
		if v.TTL != c.left || (v.Version == 7) != (c.left > 0) || (v.Data != nil) != (c.left > 0) {
			t.Errorf("after %v it is %+v: want %v to be left", c.after, v, c.left)
		}
	}
	e = seal(driver.Write{Data: []byte("x")}, driver.Value{Now: noon})
	if v := e.Value(7, noon.Add(1000*time.Hour)); v.Version != 7 || v.TTL != 0 {
		t.Errorf("what lives for ever is %+v", v)
	}
}

// Time does not go back for a name, whoever's clock is behind: a limiter would begin anew.
func TestNowNeverGoesBack(t *testing.T) {
	var e envelope.Envelope
	last := time.Time{}
	for _, clock := range []time.Duration{0, time.Minute, -time.Hour, time.Second, 2 * time.Minute} {
		v := e.Value(1, noon.Add(clock))
		if v.Now.Before(last) {
			t.Errorf("it is %v after it was %v", v.Now, last)
		}
		last = v.Now
		e = seal(driver.Write{Data: []byte("x"), TTL: time.Hour}, v)
	}
	if want := noon.Add(2 * time.Minute); !last.Equal(want) {
		t.Errorf("in the end it is %v: want %v", last, want)
	}
}

func TestCheck(t *testing.T) {
	was := driver.Value{Version: 7, Fence: 5, Now: noon}
	for _, c := range []struct {
		w  driver.Write
		ok bool
	}{
		{driver.Write{If: 7}, true},
		{driver.Write{If: driver.AnyVersion}, true},
		{driver.Write{If: 7, Fence: 5}, true},
		{driver.Write{If: 7, Fence: 4}, false},
		{driver.Write{If: driver.AnyVersion, Fence: 4, Delete: true}, false},
		{driver.Write{If: 0}, false},
		{driver.Write{If: 6}, false},
	} {
		err := envelope.Check(&c.w, was)
		var d *driver.Error
		if (err == nil) != c.ok || err != nil && (!errors.As(err, &d) || d.Kind != driver.Stale) {
			t.Errorf("%+v: %v", c.w, err)
		}
	}
	if e := seal(driver.Write{}, was); e.Fence != 5 {
		t.Errorf("a write without a fence left fence %d, want 5", e.Fence)
	}
}
