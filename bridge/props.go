package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/tidwall/gjson"
)

// ErrRouter says that the backend is a llama-server of several models, which starts one for
// each and passes requests on: it has no slots of its own.
var ErrRouter = errors.New("the backend is a router of several models (its /props: role router), which has no slots to share; want a llama-server of one model, with a sidecar of its own")

// Props is what the backend says of itself.
type Props struct {
	ModelPath  string
	Build      string
	Slots      int
	Context    int // tokens of one slot
	Multimodal bool
	Template   string
	// LoRA names the adapters that are applied where a request names none, and their scales,
	// as JSON; "[]" for none.
	LoRA string
	// Adapters counts those that are loaded: one that is not applied can be at any time.
	Adapters int
	// Start is another at each start of a server of 2026 and newer, "" in older ones: what
	// stands for an image in a prompt, which nobody is to guess.
	Start string
	// Sleeping: the server has let go of its model (--sleep-idle-seconds), and reads its file
	// anew at the next request.
	Sleeping bool
}

// Differs names what a later answer to Look says otherwise, "" where the two are the same.
// Any difference means that the server was started anew, or is another one.
func (p Props) Differs(later Props) string {
	later.LoRA, later.Adapters = p.LoRA, p.Adapters
	for _, c := range []struct {
		what string
		same bool
	}{
		{"the model's path", p.ModelPath == later.ModelPath},
		{"the build", p.Build == later.Build},
		{"the number of slots", p.Slots == later.Slots},
		{"the context", p.Context == later.Context},
		{"the mark of its start", p.Start == later.Start},
		{"something else", p == later},
	} {
		if !c.same {
			return c.what
		}
	}
	return ""
}

// Props asks for /props and /lora-adapters.
func (b *Backend) Props(ctx context.Context) (Props, error) {
	p, err := b.Look(ctx)
	if err == nil {
		p.LoRA, p.Adapters, err = b.Adapters(ctx)
	}
	return p, err
}

// Look asks for /props alone, which the server answers at once whatever it is at, and which
// does not wake one that sleeps. Of adapters it says nothing.
func (b *Backend) Look(ctx context.Context) (Props, error) {
	reply, err := b.call(ctx, http.MethodGet, "/props", b.authorization(), nil)
	if err != nil {
		return Props{}, err
	}
	g := gjson.ParseBytes(reply)
	p := Props{
		ModelPath:  g.Get("model_path").String(),
		Build:      g.Get("build_info").String(),
		Slots:      int(g.Get("total_slots").Int()),
		Context:    int(g.Get("default_generation_settings.n_ctx").Int()),
		Multimodal: g.Get("modalities.vision").Bool() || g.Get("modalities.audio").Bool(),
		Template:   g.Get("chat_template").String(),
		Start:      g.Get("media_marker").String(),
		Sleeping:   g.Get("is_sleeping").Bool(),
	}
	switch {
	case g.Get("role").String() == "router":
		return p, ErrRouter
	case p.Slots < 1:
		return p, errors.New("the backend's /props names no slots (total_slots): is it llama-server?")
	}
	return p, nil
}

// Adapters asks for /lora-adapters, since /props names only those of a request: which are
// applied, as Props.LoRA, and how many are loaded. It does so over a connection of its own,
// which the server takes up after those that were there before.
func (b *Backend) Adapters(ctx context.Context) (applied string, loaded int, err error) {
	const path = "/lora-adapters"
	reply, err := b.Once().call(ctx, http.MethodGet, path, b.authorization(), nil)
	var answer *BackendError
	if errors.As(err, &answer) && answer.Status == http.StatusNotFound {
		return "[]", 0, nil // a server that knows none
	}
	if err != nil {
		return "", 0, err
	}
	all := gjson.ParseBytes(reply)
	if !all.IsArray() {
		return "", 0, fmt.Errorf("cannot read the backend's answer to %s: expected a list", path)
	}
	type adapter struct {
		Path  string  `json:"path"`
		Scale float64 `json:"scale"`
	}
	active := []adapter{}
	for _, a := range all.Array() {
		loaded++
		if a.Get("alora_invocation_tokens.0").Exists() {
			return "", 0, fmt.Errorf("adapter %s is an activated one (aLoRA), which applies to a part of a prompt: %w", a.Get("path"), ErrUnshareable)
		}
		if scale := a.Get("scale").Float(); scale != 0 {
			active = append(active, adapter{a.Get("path").String(), scale})
		}
	}
	text, err := json.Marshal(active)
	return string(text), loaded, err
}
