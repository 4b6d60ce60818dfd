package holdfast

import "runtime"

// LocalWaitersForTest returns how many goroutines wait in the local queue of name.
func LocalWaitersForTest(c *Client, name string) int {
	b := c.bucket(name)
	b.mu.Lock()
	defer b.mu.Unlock()
	if at := b.names.Find(name); at != nil {
		return at.Value.waiters.n
	}
	return 0
}

// NamesForTest returns how many names the client remembers.
func NamesForTest(c *Client) (n int) {
	for i := range c.buckets {
		b := &c.buckets[i]
		b.mu.Lock()
		n += b.names.Len()
		b.mu.Unlock()
	}
	return n
}

// AwaitCountingForTest waits until n steps wait for the call under way.
func AwaitCountingForTest(c *Client, n int) {
	for {
		c.counting.mu.Lock()
		got := len(c.counting.waiting)
		c.counting.mu.Unlock()
		if got == n {
			return
		}
		runtime.Gosched()
	}
}
