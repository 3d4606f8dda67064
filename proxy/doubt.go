package proxy

import "time"

// What makes the sharer doubt the backend: strikes (fills in a row that it did not take),
// failures of the agent (way.go), losses of the server (losses.go), flaps (another server
// within a minute, again and again, restart.go), and doubts, which count how often it went
// away, so that a probe meanwhile is not believed.

// doubt turns sharing off until the backend is probed again, at the earliest when all requests
// that run have ended: they hold slots by a book that the next one does not know.
func (sh *Sharer) doubt(lv *live, why string, after time.Duration) {
	if !sh.live.CompareAndSwap(lv, nil) {
		return
	}
	sh.because(why + " (requests that run are awaited before it is tried out again)")
	sh.metrics.Sharing.Set(0)
	sh.log.Warn().Str("why", why).Msg("sharing is off until the backend is probed again")
	sh.running.Go(func() {
		lv.retire()
		sh.because(why)
		select {
		case <-sh.stopped:
			return
		case <-time.After(after):
		}
		select {
		case sh.reprobe <- struct{}{}:
		default:
		}
	})
}

// maxStrikes in a row turn sharing off until the backend is probed again.
const maxStrikes = 3

// notTaken is why fills that the backend failed end sharing.
const notTaken = "the backend repeatedly did not take what was filled in"

// strike counts a fill that failed, for why, and not by its own doing.
func (sh *Sharer) strike(lv *live, why string) {
	if lv.strikes.Add(1) >= maxStrikes {
		sh.doubt(lv, why, reprobeAfter)
	}
}

// mismatch counts a restore that the backend's cache_n did not confirm. Where another
// request may empty a slot at any time, or may have got this one, it says nothing of the
// backend.
func (d *decision) mismatch() {
	d.sh.metrics.Mismatches.Inc()
	if !d.lv.probed.Volatile && !d.overrun() {
		d.sh.strike(d.lv, notTaken)
	}
}
