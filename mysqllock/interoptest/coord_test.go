package interoptest

import (
	"fmt"
	"testing"
	"time"

	"github.com/holdfast-go/holdfast"
	"github.com/holdfast-go/holdfast/internal/coordtest"
	"github.com/holdfast-go/holdfast/internal/testserver"
)

// TestCoordination runs with a session for values, and with all in one.
func TestCoordination(t *testing.T) {
	t.Parallel()
	server := testserver.MariaDB(t, testserver.MariaDBOptions{})
	for _, connections := range []int{4, 1} {
		t.Run(fmt.Sprint(connections, " connections"), func(t *testing.T) {
			t.Parallel()
			l := labOn(t, server)
			coordtest.Run(t, coordtest.Harness{
				Open: func(t *testing.T) *holdfast.Client {
					on := &lab{T: t, server: server, prefix: l.prefix}
					return on.client("", fmt.Sprint("connections=", connections), 0)
				},
				TTL: 3 * time.Second, Slack: 2 * patience, // a TTL that a busy machine keeps
			})
		})
	}
}
