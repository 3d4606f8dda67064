package eval

import "github.com/semsharekv/semsharekv/proxy"

// tokenView is the target's text, token by token, and what became of each.
type tokenView struct {
	Refs   []string `json:"refs"`
	Pieces []string `json:"pieces"`
	// Runs cover the pieces in order: reason, reference or -1, position of the
	// first token in it, tokens. Positions count up within a run.
	Runs []viewRun `json:"runs"`
}

type viewRun struct {
	Reason string `json:"r"`
	Ref    int    `json:"s"`
	Pos    int    `json:"p"`
	Len    int    `json:"n"`
}

// exactReason marks the tokens of a prefix found in the slot as it was; a
// request answered in this way has no plan.
const exactReason = "exact"

func viewTokens(r *proxy.Report, pieces []string) *tokenView {
	v := &tokenView{Refs: r.Refs, Pieces: pieces}
	if len(r.Plan) != len(pieces) {
		v.planless(r, len(pieces))
		return v
	}
	for _, t := range r.Plan {
		v.add(viewRun{Reason: t.Reason.String(), Ref: int(t.Ref), Pos: int(t.Pos), Len: 1})
	}
	return v
}

// planless shows what was found in the slot and what was computed.
func (v *tokenView) planless(r *proxy.Report, n int) {
	found := 0
	if r.State == proxy.StateExact {
		found = min(max(r.Reused, 0), n)
		v.add(viewRun{Reason: exactReason, Ref: -1, Len: found})
	}
	v.add(viewRun{Reason: "cold", Ref: -1, Len: n - found})
}

func (v *tokenView) add(run viewRun) {
	if run.Len == 0 {
		return
	}
	if k := len(v.Runs) - 1; k >= 0 {
		last := &v.Runs[k]
		if last.Reason == run.Reason && last.Ref == run.Ref && (run.Ref < 0 || last.Pos+last.Len == run.Pos) {
			last.Len += run.Len
			return
		}
	}
	v.Runs = append(v.Runs, run)
}
