package proxy

import "time"

const (
	// missShare is what deciding in vain may cost, as a share of a cold prefill.
	missShare = 0.02
	// usualBytes is how many bytes of a prompt a token stands for, on average.
	usualBytes = 4
)

// budget is the time for deciding: the route's, or missShare of what the prompt is expected to
// take cold, where that is more. A long prompt's tokens alone can take longer than the route's.
// A prompt that no slot takes gets no more than the longest that does.
func (d *decision) budget() time.Duration {
	n := d.req.Prompt.tokensOf(usualBytes)
	if most := d.lv.probed.Props.Context; most > 0 {
		n = min(n, most)
	}
	cold := d.lv.costs.model().Prefill(0, n)
	return max(d.req.Policy.Budget, time.Duration(missShare*cold*float64(time.Millisecond)))
}
