package doctor

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
)

const (
	// askTime bounds one question to the backend, probeTime the probe, which
	// waits for slots that are at work.
	askTime, probeTime = 10 * time.Second, 2 * time.Minute
	// littleContext is less than prompts worth sharing need.
	littleContext = 2048
)

// backend is the server that is looked at, and what became known of it.
type backend struct {
	*bridge.Backend
	props     bridge.Props
	file      *bridge.Model // nil where it cannot be read
	shareable bool
}

func (b *backend) close() {
	if b.file != nil {
		_ = b.file.Close()
	}
	b.Close()
}

// backend returns nil where there is nothing more to find out.
func (x *examination) backend() *backend {
	const check = "backend"
	c := x.cfg.Backend
	b := &backend{Backend: bridge.NewBackend(c.URL, c.APIKey, c.Connect), shareable: true}
	ctx, cancel := context.WithTimeout(x.ctx, askTime)
	defer cancel()
	if err := b.Health(ctx); err != nil {
		advice := "start llama-server, or set backend.url to where it is"
		if status(err) == http.StatusServiceUnavailable {
			advice = "wait until it has loaded its model"
		}
		x.add(Wrong, check, advice, "%v", err)
		b.close()
		return nil
	}
	var err error
	if b.props, err = b.Props(ctx); err != nil {
		advice := "is backend.url that of a llama-server?"
		switch s := status(err); {
		case s == http.StatusUnauthorized || s == http.StatusForbidden:
			advice = "name a key that the server accepts: --api-key-env, or backend.api_key"
		case errors.Is(err, bridge.ErrRouter):
			advice = "start a llama-server for each model (-m or -hf), and a sidecar for each of them"
		}
		x.add(Wrong, check, advice, "%v", err)
		b.close()
		return nil
	}
	x.ok(check, "%s, build %s", c.URL, cmp.Or(b.props.Build, "unknown"))
	x.slots(ctx, b)
	if b.props.Multimodal {
		x.ok("multimodal", "prompts with images or sound pass through unshared")
	}
	if n := b.props.Adapters; n > 0 {
		x.ok("LoRA", "%d adapters, applied: %s; prompts share only under the same ones, and the agent is not used", n, b.props.LoRA)
	}
	return b
}

// status is that of the backend's answer, or 0.
func status(err error) int {
	var be *bridge.BackendError
	if errors.As(err, &be) {
		return be.Status
	}
	return 0
}

func (x *examination) slots(ctx context.Context, b *backend) {
	p := b.props
	switch {
	case p.Slots < 2:
		x.add(Warning, "slots", "start llama-server with -np 2 or more: one slot is overwritten by every request", "%d", p.Slots)
	default:
		x.ok("slots", "%d", p.Slots)
	}
	least := x.cfg.Store.MinTokens
	switch {
	case p.Context > 0 && p.Context < least:
		x.add(Wrong, "context per slot", "raise -c, which is divided by -np: no prompt that fits is long enough to be shared", "%d tokens, store.min_tokens is %d", p.Context, least)
	case p.Context > 0 && p.Context < littleContext:
		x.add(Warning, "context per slot", "raise -c, which is divided by -np unless --kv-unified is given", "%d tokens: longer prompts cannot be answered, nor shared", p.Context)
	default:
		x.ok("context per slot", "%d tokens", p.Context)
	}
	if _, ok := b.Busy(ctx); !ok {
		x.add(Warning, "/slots", "start llama-server without --no-slots", "the server does not tell which slots are at work")
	}
}

// model reads the model file as the sidecar would.
func (x *examination) model(b *backend) {
	const check = "model file"
	path := cmp.Or(x.cfg.Backend.Model, b.props.ModelPath)
	m, err := bridge.OpenModel(path)
	if err != nil {
		x.add(Warning, check, "set backend.model (--model) to the GGUF as seen from here: without it tokens are matched by identity alone, passages that moved are computed, so are prompts of /infill, and neither the agent nor a calibration is used", "%v", err)
		return
	}
	b.file = m
	if m.Unshareable != "" {
		b.shareable = false
		x.add(Wrong, check, "requests pass through unshared; use another model to share", "%s (%s) cannot be shared: %s", m.Name, m.Arch, m.Unshareable)
		return
	}
	x.ok(check, "%s (%s), %s", cmp.Or(m.Name, path), m.Arch, path)
	if !m.HasEmbeddings() {
		x.add(Warning, "embeddings", "tokens are matched by identity", "no table that can be read (type %s)", m.Embedding)
	}
}

// probe does what the sidecar does at its start, but for the agent.
func (x *examination) probe(b *backend) {
	const check = "sharing"
	ctx, cancel := context.WithTimeout(x.ctx, probeTime)
	defer cancel()
	kernels, err := bridge.LoadKernels(x.cfg.Backend.Library)
	if err != nil {
		kernels = bridge.GoKernels()
	}
	idle, _, _ := b.Idle(ctx, -1)
	p, err := bridge.Prober{Backend: b.Backend, Slot: idle, Props: b.props, Dir: x.cfg.Backend.SlotDir, Model: b.file, Kernels: kernels}.Probe(ctx)
	if err != nil {
		advice := "start llama-server with --slot-save-path naming the directory that backend.slot_dir names here, as a user who can write there and whose files can be read here"
		switch {
		case errors.Is(err, bridge.ErrUnshareable):
			advice = "requests pass through unshared with this model and these settings of the server"
		case errors.Is(err, bridge.ErrTaken):
			advice = "ask again while the server is less busy; a running sidecar keeps requests back for a moment"
		}
		x.add(Wrong, check, advice, "%v", err)
		return
	}
	x.ok(check, "a saved slot was read, understood, restored and used; a token prefills in %.2f ms", p.TokenMS())
	x.cache(p)
	switch {
	case p.RoPE == nil:
		x.add(Warning, "moving keys", b.toMove(p)+"; until then only prefixes and passages that stay in place are shared", "%s", p.Why)
	case p.NotFar != "":
		x.add(Warning, "moving keys", "give the server no RoPE flags (--rope-..., --yarn-...) but the model file's own: what they change of slow pairs would not have been seen", "they could be compared over a short way only: %s", p.NotFar)
	default:
		x.ok("moving keys", "the server's keys turn as the model file says")
	}
	if p.Volatile {
		x.add(Warning, "idle slots", "start llama-server with --no-cache-idle-slots", "the server clears them whenever a request starts, so that shared requests wait for one another")
	} else {
		x.ok("idle slots", "they keep what they hold")
	}
}

// toMove is what to do where keys cannot be moved.
func (b *backend) toMove(p *bridge.Probed) string {
	switch {
	case b.file == nil:
		return "set backend.model (--model) to the GGUF as seen from here"
	case p.Layout.Movable() != nil:
		return "give the server a K cache of f16 (-ctk f16), or take a llama-server whose state files have version 4"
	default:
		return "give the server no RoPE flags (--rope-..., --yarn-...) but the model file's own"
	}
}

func (x *examination) cache(p *bridge.Probed) {
	l := p.Layout.Layers[0]
	x.ok("KV cache", "%d layers, K %s, V %s, %d bytes a token", len(p.Layout.Layers), l.KType, l.VType, p.Layout.BytesPerToken())
	stored := &p.Layout
	if c, err := bridge.ParseCompression(x.cfg.Store.Compress); err == nil && c != nil {
		stored = c.Layout(stored)
	}
	whole := stored.FileBytes(p.Props.Context, p.Props.Context)
	if budget := x.cfg.Store.Budget; whole > budget {
		x.add(Warning, "budget", "raise store.budget_bytes", "%s holds not even one prompt of a whole context (%s)", configs.FormatSize(budget), configs.FormatSize(whole))
	} else {
		x.ok("budget", "%s holds about %d tokens of prompts", configs.FormatSize(budget), budget/max(1, stored.BytesPerToken()))
	}
}
