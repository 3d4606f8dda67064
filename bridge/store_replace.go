package bridge

// Replace drops old, of which by was made, and has by go on with what old has earned. It
// does nothing where one of them is gone.
func (s *Store) Replace(old, by *Reference) {
	s.mu.Lock()
	from, to := s.entries[old.ID], s.entries[by.ID]
	if from == nil || to == nil {
		s.mu.Unlock()
		return
	}
	to.earned = from.earned
	m := &to.meta
	m.Created, m.Used, m.Hits, m.SavedTokens = from.meta.Created, from.meta.Used, from.meta.Hits, from.meta.SavedTokens
	to.dirty = s.writeMeta(to) != nil
	s.stats.Dropped[dropReplaced]++
	s.detach(from, dropReplaced)
	s.mu.Unlock()
	s.discard(from)
}
