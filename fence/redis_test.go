package fence_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/fence"
)

// recorder answers scripts with err, and keeps what it was sent.
type recorder struct {
	keys [][]string
	args []any
	err  error
}

func (r *recorder) eval(_ context.Context, _ string, keys []string, args ...any) (any, error) {
	r.keys, r.args = append(r.keys, keys), args
	return "OK", r.err
}

// A fence is in the slot of its key, so both have the same hash tag; and it belongs to one tag
// and one name.
func TestRedisKeysOfFences(t *testing.T) {
	for key, want := range map[string]string{
		"total":        "holdfast.fenced:{total}n",
		"{a}total":     "holdfast.fenced:{a}n",
		"x{a}y{b}":     "holdfast.fenced:{a}n",
		"x}{a}":        "holdfast.fenced:{a}n",
		"{{a}}":        "holdfast.fenced:{{a}n",
		"open{brace":   "holdfast.fenced:{open{brace}n",
		"\x00\xff\r\n": "holdfast.fenced:{\x00\xff\r\n}n",
	} {
		var rec recorder
		r, err := fence.NewRedis(rec.eval, fence.RedisConfig{})
		must(t, err)
		must(t, r.Open(t.Context(), fence.Of("n", 1), key))
		must(t, r.Set(t.Context(), fence.Of("n", 1), key, "v", 0))
		if !slices.Equal(rec.keys[0], []string{want}) || !slices.Equal(rec.keys[1], []string{key, want}) {
			t.Errorf("%q: keys %q, want %q", key, rec.keys, want)
		}
	}
}

func TestRedisKeysOfAScript(t *testing.T) {
	var rec recorder
	r, err := fence.NewRedis(rec.eval, fence.RedisConfig{Prefix: "f:", Keep: time.Hour})
	must(t, err)
	keys, args := make([]string, 0, 9), make([]any, 0, 9)
	keys, args = append(keys, "{a}1", "{a}2", "b"), append(args, "x")
	if _, err := r.Eval(t.Context(), fence.Of("n}", 1760000000123456), "return 1", keys, args...); err != nil {
		t.Fatal(err)
	}
	if want := []string{"{a}1", "{a}2", "b", "f:{a}n}", "f:{b}n}"}; !slices.Equal(rec.keys[0], want) {
		t.Errorf("keys %q, want %q", rec.keys[0], want)
	}
	if want := []any{"x", "1760000000123456", int64(3600000), 2}; !slices.Equal(rec.args, want) {
		t.Errorf("args %v, want %v", rec.args, want)
	}
	if keys[:4][3] != "" || args[:2][1] != nil {
		t.Error("the caller's slices were written to")
	}
}

func TestRedisErrors(t *testing.T) {
	rec := recorder{err: errors.New("STALEFENCE 34")}
	r, err := fence.NewRedis(rec.eval, fence.RedisConfig{})
	must(t, err)
	wantStale(t, r.Set(t.Context(), fence.Of("n", 33), "k", "v", 0), 33, 34)
	rec.err = errors.New("ERR STALEFENCE 0 script: on @user_script")
	wantStale(t, r.Open(t.Context(), fence.Of("n", 33), "k"), 33, 0)
	for _, raw := range []error{errors.New("STALEFENCE garbage"), errors.New("NOFENCE other"), context.DeadlineExceeded} {
		rec.err = raw
		if err := r.Open(t.Context(), fence.Of("n", 33), "k"); !errors.Is(err, holdfast.ErrUnavailable) || !errors.Is(err, raw) {
			t.Errorf("error %v, want ErrUnavailable and %v", err, raw)
		}
	}
}

func TestRedisBadInput(t *testing.T) {
	var rec recorder
	_, err := fence.NewRedis(nil, fence.RedisConfig{Prefix: "{a}", Keep: time.Second})
	wantInvalid(t, err, "eval is nil", "Prefix", "Keep")
	_, err = fence.NewRedis(rec.eval, fence.RedisConfig{Prefix: strings.Repeat("p", 129), Keep: -time.Hour})
	wantInvalid(t, err, "Prefix", "Keep")
	r, err := fence.NewRedis(rec.eval, fence.RedisConfig{})
	must(t, err)
	l := fence.Of("n", 1)
	wantInvalid(t, r.Open(t.Context(), l), "no key")
	wantInvalid(t, r.Open(t.Context(), l, "good", ""), "key")
	for _, key := range []string{"", "a}", "{}a", "{}{a}", "}a{"} {
		wantInvalid(t, r.Set(t.Context(), l, key, "v", 0), "hash tag")
	}
	wantInvalid(t, r.Set(t.Context(), l, "k", "v", -1), "ttl")
	wantInvalid(t, r.Set(t.Context(), l, "k", "v", time.Microsecond), "ttl")
	_, err = r.Eval(t.Context(), l, "#!lua flags=no-writes\nreturn 1", []string{"k"})
	wantInvalid(t, err, "shebang")
	if rec.keys != nil {
		t.Errorf("sent %q", rec.keys)
	}
}
