package proxy

import "time"

const (
	// missShare is what deciding in vain may cost, as a share of a cold prefill.
	missShare = 0.02
	// usualBytes is how many bytes of a prompt a token stands for, on average, mostBytes how
	// many it hardly ever does.
	usualBytes, mostBytes = 4, 8
)

// budget is the time for deciding: the route's, or missShare of what the prompt is expected to
// take cold, where that is more. A long prompt's tokens alone can take longer than the route's.
// One that no slot takes gets no more than that: its tokens would only take memory.
func (d *decision) budget() time.Duration {
	route, most := d.req.Policy.Budget, d.lv.probed.Props.Context
	if d.req.Prompt.tokensOf(mostBytes) > most {
		return route
	}
	cold := d.lv.costs.model().Prefill(0, min(d.req.Prompt.tokensOf(usualBytes), most))
	return max(route, time.Duration(missShare*cold*float64(time.Millisecond)))
}
