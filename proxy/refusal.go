package proxy

import (
	"cmp"
	"fmt"
	"os"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
)

// maxReprobe is the longest that a backend which cannot be shared with is left alone.
const maxReprobe = time.Hour

// refusal is a backend that was tried out in vain. Each try costs somebody the content of a
// slot, so it is not tried again until it is another one, or for twice as long each time.
type refusal struct {
	props bridge.Props
	model string // stampOfModel
	pause time.Duration
	until time.Time
}

// again notes that it was tried once more.
func (r *refusal) again(props bridge.Props, model string) {
	if !r.same(props, model) {
		*r = refusal{props: props, model: model}
	}
	r.pause = min(maxReprobe, max(reprobeAfter, 2*r.pause))
	r.until = time.Now().Add(r.pause)
}

// stands: the backend is the one that was refused, a short while ago.
func (r *refusal) stands(props bridge.Props, model string) bool {
	return r.same(props, model) && time.Now().Before(r.until)
}

func (r *refusal) same(props bridge.Props, model string) bool {
	return r.props.Differs(props) == "" && r.model == model
}

// stampOfModel tells one model file from another in its place; "" where it cannot be seen.
func (sh *Sharer) stampOfModel(props bridge.Props) string {
	st, err := os.Stat(cmp.Or(sh.cfg.Backend.Model, props.ModelPath))
	if err != nil {
		return ""
	}
	return fmt.Sprint(st.Size(), " ", st.ModTime().UnixNano())
}
