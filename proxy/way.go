package proxy

import (
	"context"
	"errors"
	"sync"

	"github.com/semsharekv/semsharekv/bridge"
)

// Whether slots are filled by the agent or through saved states.

// errAgentFatal is why the agent is not tried again.
var errAgentFatal = errors.New("the agent was not tried: the backend was lost while it was at work. Set backend.way to slot, and report it with the end of llama-server's log")

// agent reports whether slots are filled by the agent.
func (lv *live) agent() bool { return lv.whyNoAgent.Load() == nil }

// maxFailures of the agent in a row have slots filled by the slot way.
const maxFailures = 3

// agentFailed counts a recipe that failed, if that may be the agent's doing.
func (lv *live) agentFailed(sh *Sharer, err error) {
	switch {
	case errors.Is(err, bridge.ErrNotTaken), errors.Is(err, bridge.ErrNoCells):
	case errors.Is(err, bridge.ErrLost):
		sh.losses.add(lv.buildAndModel(), 1)
	case errors.Is(err, bridge.ErrNoAgent), lv.failures.Add(1) >= maxFailures:
		lv.dismiss(sh, err)
	}
}

// dismiss goes on by the slot way.
func (lv *live) dismiss(sh *Sharer, err error) {
	why := err.Error()
	if lv.whyNoAgent.CompareAndSwap(nil, &why) {
		sh.log.Warn().Err(err).Msg("the agent failed: slots are filled through saved states until the backend is probed again")
	}
}

// chooseWay tries the agent out where the configuration wants it.
func (sh *Sharer) chooseWay(ctx context.Context, lv *live, prober bridge.Prober) error {
	why := "backend.way is slot"
	if sh.cfg.Backend.Way != "slot" {
		err := sh.tryAgent(ctx, lv, prober)
		if err == nil {
			return nil
		}
		if sh.cfg.Backend.Way == "agent" || errors.Is(err, bridge.ErrLost) || errors.Is(err, bridge.ErrTaken) {
			return err
		}
		why = err.Error()
	}
	lv.whyNoAgent.Store(&why)
	return nil
}

// tryAgent has the agent compute something, unless that already cost the same backend its
// life, or recipes did several times: whatever starts it again would do so in vain.
func (sh *Sharer) tryAgent(ctx context.Context, lv *live, prober bridge.Prober) error {
	same := lv.buildAndModel()
	if sh.losses.many(same) {
		return errAgentFatal
	}
	reply, err := prober.Agent(ctx, lv.probed)
	lv.agentKernels = reply.Kernels
	if errors.Is(err, bridge.ErrLost) {
		sh.losses.add(same, maxFailures)
		sh.log.Error().Err(err).Msg("the backend was lost while the agent was tried out, which is not done again with this build and model: set backend.way to slot, and report it with the end of llama-server's log")
	}
	return err
}

func (lv *live) buildAndModel() string {
	return lv.probed.Props.Build + " " + lv.probed.Props.ModelPath
}

// losses counts how often a backend was lost while the agent was at work in it.
type losses struct {
	mu   sync.Mutex
	with string // its build and model
	n    int
}

func (l *losses) add(with string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.with != with {
		l.with, l.n = with, 0
	}
	l.n += n
}

func (l *losses) many(with string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.with == with && l.n >= maxFailures
}
