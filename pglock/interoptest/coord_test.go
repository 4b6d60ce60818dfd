package interoptest

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/coordtest"
	"github.com/holdfast-go/holdfast/pglock"
)

// coordination checks the types beside locks through each driver, with a session for values,
// and with all in one.
func coordination(b *bench) {
	for i, through := range drivers {
		cfg := pglock.Config{Schema: "coordination", Connections: []int{4, 1}[i]}
		b.Run(fmt.Sprint(through, " ", cfg.Connections), func(t *testing.T) {
			t.Parallel()
			db := pool(t, through, b.server.URL())
			coordtest.Run(t, coordtest.Harness{
				Open: func(t *testing.T) *holdfast.Client {
					c, err := holdfast.New(engine(t, db, cfg), holdfast.Config{})
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = c.Close() })
					return c
				},
				TTL: 3 * time.Second, Slack: 2 * patience, // a TTL that a busy machine keeps
			})
		})
	}
}
