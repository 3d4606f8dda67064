package bridge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/tidwall/gjson"
)

// slotNow is what /slots says of a slot: whether it is at work, how many tokens of a prompt
// it holds, and whether it decodes speculatively.
type slotNow struct {
	busy       bool
	held       int
	speculates bool
}

// slots asks /slots, which a server may be told not to answer.
func (b *Backend) slots(ctx context.Context) (all []slotNow, err error) {
	reply, err := b.call(ctx, http.MethodGet, "/slots", b.authorization(), nil)
	if err != nil {
		return nil, err
	}
	for _, s := range gjson.ParseBytes(reply).Array() {
		all = append(all, slotNow{s.Get("is_processing").Bool(), int(s.Get("n_prompt_tokens").Int()), s.Get("speculative").Bool()})
	}
	return all, nil
}

// Busy asks /slots which slots are at work. ok is false where the server does
// not tell.
func (b *Backend) Busy(ctx context.Context) (busy []bool, ok bool) {
	all, err := b.slots(ctx)
	for _, s := range all {
		busy = append(busy, s.busy)
	}
	return busy, err == nil
}

// Speculates asks /slots whether the server decodes speculatively, with a draft model or by
// other means. Where it does not tell, it may.
func (b *Backend) Speculates(ctx context.Context) bool {
	all, err := b.slots(ctx)
	return err != nil || slices.ContainsFunc(all, func(s slotNow) bool { return s.speculates })
}

// Held asks /slots how many tokens of a prompt the slot holds.
func (b *Backend) Held(ctx context.Context, slot int) (int, error) {
	all, err := b.slots(ctx)
	if err != nil || slot >= len(all) {
		return 0, err
	}
	return all[slot].held, nil
}

// AllHeld asks /slots how many tokens each slot holds; -1 where one is at work.
func (b *Backend) AllHeld(ctx context.Context) (held []int, err error) {
	all, err := b.slots(ctx)
	for _, s := range all {
		if s.busy {
			s.held = -1
		}
		held = append(held, s.held)
	}
	return held, err
}

// Idle asks /slots for a slot other than but (-1: any) that is not at work, of
// several for the one that holds least. err says that the server does not tell, ok that there
// is one.
func (b *Backend) Idle(ctx context.Context, but int) (slot int, ok bool, err error) {
	all, err := b.slots(ctx)
	for i, s := range all {
		if i == but || s.busy {
			continue
		}
		if !ok || s.held < all[slot].held {
			slot, ok = i, true
		}
	}
	return slot, ok, err
}

// Prefilled is the backend's own account of a prefill.
type Prefilled struct {
	CacheN, PromptN int     // tokens found in the cache, tokens computed
	PromptMS        float64 // time of computing
}

// Prefill has the slot compute tokens behind what it holds of them, and
// generate nothing. Whether it goes by what it holds is left to the server's own setting, as
// in requests that are shared.
func (b *Backend) Prefill(ctx context.Context, slot int, tokens []int32) (Prefilled, error) {
	reply, err := b.post(ctx, "/completion", b.authorization(), map[string]any{
		"prompt": tokens, "n_predict": 0, "id_slot": slot, "stream": false,
		"n_cache_reuse": 0, "response_fields": []string{"timings", "id_slot"},
	})
	if err != nil {
		return Prefilled{}, err
	}
	if used := gjson.GetBytes(reply, "id_slot"); used.Exists() && int(used.Int()) != slot {
		return Prefilled{}, fmt.Errorf("%w: slot %d was asked for, slot %d computed", ErrChanged, slot, used.Int())
	}
	t := gjson.GetBytes(reply, "timings")
	if !t.Get("cache_n").Exists() {
		return Prefilled{}, errors.New("the backend's timings carry no cache_n: llama-server of September 2025 or newer is needed")
	}
	return Prefilled{int(t.Get("cache_n").Int()), int(t.Get("prompt_n").Int()), t.Get("prompt_ms").Float()}, nil
}

// Save writes the slot's state to a file of that name in the slot directory and
// returns how many tokens and bytes the server says it wrote.
func (b *Backend) Save(ctx context.Context, slot int, file string) (tokens int, bytes int64, err error) {
	reply, err := b.slot(ctx, slot, "save", map[string]any{"filename": file})
	if err != nil {
		return 0, 0, err
	}
	return int(gjson.GetBytes(reply, "n_saved").Int()), gjson.GetBytes(reply, "n_written").Int(), nil
}

// ErrNoCells says that the server's cache has no free cells for what is to be restored: under
// --kv-unified other slots may hold them.
var ErrNoCells = errors.New("no free cells in the backend's cache")

// noCells is in the server's answer where it has none, and where it takes a file for damaged.
const noCells = "available space in KV cache"

// Restore reads a state file of the slot directory into the slot. The server's
// word is no proof that it took: compare cache_n of the next request.
func (b *Backend) Restore(ctx context.Context, slot int, file string) (tokens int, err error) {
	reply, err := b.slot(ctx, slot, "restore", map[string]any{"filename": file})
	var answer *BackendError
	if errors.As(err, &answer) && strings.Contains(answer.Body, noCells) {
		err = fmt.Errorf("%w: %w", ErrNoCells, err)
	}
	if err != nil {
		return 0, err
	}
	return int(gjson.GetBytes(reply, "n_restored").Int()), nil
}

// Erase empties the slot.
func (b *Backend) Erase(ctx context.Context, slot int) error {
	_, err := b.Empty(ctx, slot)
	return err
}

// Empty is Erase, and returns how many tokens the slot held.
func (b *Backend) Empty(ctx context.Context, slot int) (tokens int, err error) {
	reply, err := b.slot(ctx, slot, "erase", map[string]any{})
	return int(gjson.GetBytes(reply, "n_erased").Int()), err
}

func (b *Backend) slot(ctx context.Context, slot int, action string, body any) ([]byte, error) {
	return b.post(ctx, fmt.Sprintf("/slots/%d?action=%s", slot, action), b.authorization(), body)
}
