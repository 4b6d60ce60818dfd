package holdfast_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/driver"
	"github.com/holdfast-go/holdfast/memlock"
)

// patient is an engine that can be diagnosed.
type patient struct {
	driver.Engine
	ttl  time.Duration
	init error
}

func (p *patient) Diagnose(_ context.Context, ttl time.Duration) (driver.Diagnosis, error) {
	p.ttl = ttl
	var d driver.Diagnosis
	d.Fact("pulse", "%d", 60)
	d.Find(driver.LevelWarning, "fever", "rest", "%d degrees", 39)
	d.Find(driver.LevelOK, "ears", "", "two")
	return d, nil
}

func (p *patient) Init(context.Context) error { return p.init }

func (p *patient) Heal(context.Context) error { return p.init }

func TestDiagnose(t *testing.T) {
	p := &patient{Engine: memlock.NewStore(memlock.Config{}).Engine()}
	c := clientOn(t, p, holdfast.Config{TTL: 7 * time.Second})
	d, err := c.Diagnose(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p.ttl != 7*time.Second {
		t.Errorf("the engine was asked about leases of %v", p.ttl)
	}
	if d.Worst() != driver.LevelWarning {
		t.Errorf("worst is %v", d.Worst())
	}
	text, err := json.Marshal(d)
	const sheet = `{"facts":[{"name":"pulse","value":"60"}],"findings":[` +
		`{"level":"warning","subject":"fever","text":"39 degrees","remedy":"rest"},{"level":"ok","subject":"ears","text":"two"}]}`
	if err != nil || string(text) != sheet {
		t.Errorf("%s, %v; want %s", text, err, sheet)
	}
	if err := c.Init(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.Heal(t.Context()); err != nil {
		t.Error(err)
	}
	p.init = driver.Failf(driver.Invalid, "not new")
	want(t, c.Init(t.Context()), holdfast.ErrInvalid)
	want(t, c.Heal(t.Context()), holdfast.ErrInvalid)
	c.Close()
	_, err = c.Diagnose(t.Context())
	want(t, err, holdfast.ErrClosed)
}

func TestDiagnoseUnsupported(t *testing.T) {
	c := clientOn(t, memlock.NewStore(memlock.Config{}).Engine(), holdfast.Config{})
	_, err := c.Diagnose(t.Context())
	want(t, err, holdfast.ErrUnsupported)
	want(t, c.Init(t.Context()), holdfast.ErrUnsupported)
	want(t, c.Heal(t.Context()), holdfast.ErrUnsupported)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Diagnose(ctx)
	want(t, err, context.Canceled)
}
