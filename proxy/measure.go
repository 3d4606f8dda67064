package proxy

import "context"

// Observe has f called with everything known of each generation request.
func (s *Server) Observe(f func(Report)) { s.sharer.Observe(f) }

// Drain waits until what was answered has been captured.
func (s *Server) Drain(ctx context.Context) error { return s.sharer.Drain(ctx) }

// EmptySlots empties all slots; the references stay.
func (s *Server) EmptySlots(ctx context.Context) error { return s.sharer.EmptySlots(ctx) }

// Forget drops all references and empties all slots.
func (s *Server) Forget(ctx context.Context) error { return s.sharer.Forget(ctx) }

// Ready returns nil once prompts can be shared, and until then why not.
func (s *Server) Ready() error { return s.sharer.Ready() }
