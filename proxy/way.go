package proxy

import (
	"context"
	"errors"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
)

// Whether slots are filled by the agent or through saved states.

// errAgentFatal is why the agent is not tried again.
var errAgentFatal = errors.New("the agent was not tried: the backend was lost again and again while it was at work. Set backend.way to slot, and report it with the end of llama-server's log")

// agent reports whether slots are filled by the agent.
func (lv *live) agent() bool { return lv.whyNoAgent.Load() == nil }

const (
	// maxFailures of the agent in a row have slots filled by the slot way, for agentRest; one
	// more after it does so again.
	maxFailures = 3
	agentRest   = time.Hour
)

// agentFailed counts a recipe that failed, if that may be the agent's doing.
func (lv *live) agentFailed(sh *Sharer, err error) {
	switch {
	case isAny(err, bridge.ErrNotTaken, bridge.ErrNoCells, bridge.ErrUnsent):
	case errors.Is(err, bridge.ErrLost):
		lv.lostWith(sh)
	case errors.Is(err, bridge.ErrNoAgent), lv.failures.Add(1) >= maxFailures:
		lv.dismiss(sh, err)
	}
}

// dismiss goes on by the slot way, for a while.
func (lv *live) dismiss(sh *Sharer, err error) {
	why := err.Error()
	if !lv.whyNoAgent.CompareAndSwap(nil, &why) {
		return
	}
	sh.log.Warn().Err(err).Msg("the agent failed: slots are filled through saved states for an hour")
	sh.tellHow(lv)
	rest := time.AfterFunc(agentRest, func() {
		lv.whyNoAgent.CompareAndSwap(&why, nil)
		sh.tellHow(lv)
	})
	context.AfterFunc(lv.ctx, func() { rest.Stop() })
}

// lostWith counts that the backend was lost with recipes under way: once, however many. At
// most one of them ended it, the others waited in it.
func (lv *live) lostWith(sh *Sharer) {
	if lv.lost.CompareAndSwap(false, true) {
		sh.losses.add(buildAndModel(lv.probed.Props))
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
		if ctx.Err() != nil || sh.cfg.Backend.Way == "agent" || isAny(err, bridge.ErrLost, bridge.ErrTaken, bridge.ErrUnsent) {
			return err
		}
		why = err.Error()
	}
	lv.whyNoAgent.Store(&why)
	return nil
}

// tryAgent has the agent compute something, unless that, or recipes, cost the same backend
// its life several times: whatever starts it again would do so in vain.
func (sh *Sharer) tryAgent(ctx context.Context, lv *live, prober bridge.Prober) error {
	if sh.losses.many(buildAndModel(lv.probed.Props)) {
		return errAgentFatal
	}
	reply, err := prober.Agent(ctx, lv.probed)
	lv.agentKernels = reply.Kernels
	if errors.Is(err, bridge.ErrLost) {
		lv.lostWith(sh)
		sh.log.Error().Err(err).Msg("the backend was lost while the agent was tried out, which is done three times at most with this build and model: set backend.way to slot, and report it with the end of llama-server's log")
	}
	return err
}
