package bridge

import "container/list"

// maxIdle is how many states stay mapped that nobody uses: of all mappings the system allows a
// process 65,530 (vm.max_map_count).
const maxIdle = 4096

// idleStates are the entries whose states are mapped though nobody uses them, the longest
// unused last. Store.mu guards them.
type idleStates struct {
	list.List
	most int
}

// pin keeps e's state from being unmapped until unpin. The caller holds s.mu.
func (s *Store) pin(e *entry) {
	e.pins++
	s.leaveIdle(e)
}

// unpin ends a use of e, and returns what can be unmapped: nobody uses it, and e is to go, or
// it is the longest unused of too many. The caller holds s.mu.
func (s *Store) unpin(e *entry) states {
	e.pins--
	unused := s.unmapIfUnused(e, e.why != "" || s.closed)
	if e.pins > 0 || e.state == nil {
		return unused
	}
	e.idle = s.idle.PushFront(e)
	if s.idle.Len() > s.idle.most {
		unused = append(unused, s.unmapIfUnused(s.idle.Back().Value.(*entry), true)...)
	}
	return unused
}

// unmapIfUnused returns what can be unmapped once e has no users: its replaced
// states and, where all is to go, the present one. The caller holds s.mu.
func (s *Store) unmapIfUnused(e *entry, all bool) states {
	if e.pins > 0 {
		return nil
	}
	unused := e.old
	e.old = nil
	if all && e.state != nil {
		unused = append(unused, e.state)
		e.state = nil
		s.leaveIdle(e)
	}
	return unused
}

func (s *Store) leaveIdle(e *entry) {
	if e.idle != nil {
		s.idle.Remove(e.idle)
		e.idle = nil
	}
}

// states are mappings that nobody uses any more.
type states []*State

func (all states) close() {
	for _, s := range all {
		_ = s.Close()
	}
}
