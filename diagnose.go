package holdfast

import (
	"context"

	"github.com/holdfast-go/holdfast/driver"
)

// Diagnosis is what an engine says about its servers at one moment, and what that means for
// locks.
type Diagnosis = driver.Diagnosis

// Diagnose looks at everything that locks depend on: versions, permissions, replicas and
// settings of the servers, for leases of Config.TTL. It takes no lock. It fails with
// ErrUnsupported on an engine that cannot tell, and with ErrUnavailable where nothing answers;
// what is wrong beyond that are findings. Texts of servers in them are not to be trusted.
func (c *Client) Diagnose(ctx context.Context) (Diagnosis, error) {
	var found Diagnosis
	err := withAbility(ctx, c, "diagnose", "", "cannot tell what state it is in", func(d driver.Diagnoser) (err error) {
		found, err = d.Diagnose(ctx, c.cfg.TTL)
		return err
	})
	return found, err
}

// Init says that no lock was ever taken on the engine's servers, which then need not wait
// until earlier ones must have ended before they grant the first. It is for operators: said of
// servers that have granted locks it lets two hold one. It fails with ErrInvalid, and changes
// nothing, where the servers are seen not to be new, and with ErrUnsupported on an engine that
// never waits.
func (c *Client) Init(ctx context.Context) error {
	return withAbility(ctx, c, "init", "", "has nothing to initialize", func(i driver.Initializer) error {
		return i.Init(ctx)
	})
}

// Heal says that servers which have forgotten what they granted are to take part again, where
// the engine leaves them out because too few others remember. It is for operators, who know
// that what is down stays down: servers that come back later with what they had may make two
// hold one lock. It changes nothing where nothing is wrong, and fails with ErrUnavailable where
// too few servers answer and with ErrUnsupported on an engine that has nothing to heal.
func (c *Client) Heal(ctx context.Context) error {
	return withAbility(ctx, c, "heal", "", "has nothing to heal", func(h driver.Healer) error {
		return h.Heal(ctx)
	})
}
