package proxy

import (
	"time"

	"github.com/semsharekv/semsharekv/bridge"
)

const (
	// maxReprobe is the longest that a backend which cannot be shared with is left alone.
	maxReprobe = time.Hour
	// maxReask is that where it failed at something, as on a full disk, which may pass.
	maxReask = 5 * time.Minute
)

// refusal is a backend that was tried out in vain. Each try costs somebody the content of a
// slot, so it is not tried again until it is another one, or for twice as long each time.
type refusal struct {
	props bridge.Props
	model string // bridge.ModelStamp
	pause time.Duration
	until time.Time
}

// again notes that it was tried once more, and is to be left alone for most at most.
func (r *refusal) again(props bridge.Props, model string, most time.Duration) {
	if !r.same(props, model) {
		*r = refusal{props: props, model: model}
	}
	r.pause = min(most, max(reprobeAfter, 2*r.pause))
	r.until = time.Now().Add(r.pause)
}

// stands: the backend is the one that was refused, a short while ago.
func (r *refusal) stands(props bridge.Props, model string) bool {
	return r.same(props, model) && time.Now().Before(r.until)
}

// overdue: it was left alone for twice as long as it was to be.
func (r *refusal) overdue() bool { return time.Since(r.until) > r.pause }

func (r *refusal) same(props bridge.Props, model string) bool {
	return r.props.Differs(props) == "" && r.model == model
}
