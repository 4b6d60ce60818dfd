package holdfast

import "github.com/holdfast-go/holdfast/driver"

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

// InUseForTest reports whether anybody uses what the client knows about name.
func InUseForTest(c *Client, name string) bool {
	b := c.bucket(name)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.names.Find(name) != nil
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

// StepForTest returns the step that a limiter makes.
func StepForTest(l *Limiter) driver.Count { return l.step }
