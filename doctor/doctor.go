// Package doctor looks at everything that sharing depends on (the sidecar's own
// files, the slot directory, the backend, its model, the index) and says for each
// whether it is in order and, where not, what to do. It changes nothing for good;
// only its probe of the backend empties two slots.
package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/semsharekv/semsharekv/configs"
)

// Level is how bad a finding is.
type Level string

const (
	OK      Level = "ok"
	Warning Level = "warning" // it works, but slower, less often or less safely
	Wrong   Level = "wrong"   // nothing is shared, or requests fail
)

// Finding is what was found out about one thing.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	Found string `json:"found"`
	// Advice says what to do; empty where all is well.
	Advice string `json:"advice,omitempty"`
}

// Findings are in the order in which they were made.
type Findings []Finding

// Count tells how many findings are of that level.
func (f Findings) Count(l Level) int {
	n := 0
	for _, x := range f {
		if x.Level == l {
			n++
		}
	}
	return n
}

// Print writes one line a finding, and under it what to do.
func (f Findings) Print(w io.Writer) error {
	for _, x := range f {
		if _, err := fmt.Fprintf(w, "%-8s %-18s %s\n", x.Level, x.Check, x.Found); err != nil {
			return err
		}
		if x.Advice == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%-8s %-18s -> %s\n", "", "", x.Advice); err != nil {
			return err
		}
	}
	return nil
}

// JSON writes the findings as one array.
func (f Findings) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(f)
}

// examination is one run.
type examination struct {
	ctx   context.Context
	cfg   *configs.Config
	found Findings
}

func (x *examination) add(l Level, check, advice, format string, args ...any) {
	x.found = append(x.found, Finding{Check: check, Level: l, Found: fmt.Sprintf(format, args...), Advice: advice})
}

func (x *examination) ok(check, format string, args ...any) { x.add(OK, check, "", format, args...) }

// Program looks at what belongs to the program itself: its native library, which
// may be named, and the agent beside it.
func Program(library, agent string) Findings {
	x := &examination{}
	x.kernels(library)
	x.agent(agent)
	return x.found
}

// Examine looks at everything that a valid configuration names. probe also
// prefills, saves and restores a short prompt, as the sidecar does at its start.
func Examine(ctx context.Context, cfg *configs.Config, probe bool) Findings {
	x := &examination{ctx: ctx, cfg: cfg}
	x.addresses()
	x.tenant()
	slots := x.slotDir()
	x.secret()
	x.index()
	if b := x.backend(); b != nil {
		defer b.close()
		x.model(b)
		if probe && slots && b.shareable {
			x.probe(b)
		}
	}
	return x.found
}
