package memlock

// BooksForTest counts the names that s remembers.
func (s *Store) BooksForTest() int {
	n := 0
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		sh.books.All(func(*entry) bool { n++; return true })
		sh.mu.Unlock()
	}
	return n
}
