//go:build !unix

package redislock

// looks says that silent cannot tell, and there are no lines: no call is to be made on a connection
// that the server has closed.
const looks = false

func (*socket) silent() bool { return false }
