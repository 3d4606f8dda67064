package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

// AgentReply is the agent's report on a recipe that it carried out or refused.
type AgentReply struct {
	Version int    `json:"agent"`
	Arch    string `json:"arch"`
	Layers  int    `json:"layers"`
	// Cells is how many cells the state has; Keys counts those whose keys and
	// values were computed, added up over the layers, and Through those that went
	// through a whole layer.
	Cells   int   `json:"cells"`
	Keys    int64 `json:"keys"`
	Through int64 `json:"through"`
	// Drafted are an answer's first tokens, by which the cells were chosen.
	Drafted []int32 `json:"drafted"`
	// Cache says where the rows were made: in the server's cache in "host" memory or in
	// that of a "cuda" device, or "aside", to be restored from there, and Aside why.
	Cache string `json:"cache"`
	Aside string `json:"aside"`
	// Brought counts the references that had to be brought to the device from their files,
	// since the server had not saved them lately.
	Brought int `json:"brought"`
	// Spared counts, since the server began, the prompts that it did not have to tokenise a
	// second time when the request followed its recipe.
	Spared int64 `json:"spared"`
	// Kernels are those that computed: "ggml", or the instruction set of the agent's own.
	Kernels string `json:"kernels"`
	// Milliseconds.
	Compose   float64 `json:"compose_ms"`
	Recompute float64 `json:"recompute_ms"`
	Restore   float64 `json:"restore_ms"`
	Error     string  `json:"error"`
	// NoCells: the error is that the server's cache has no free cells for the prompt.
	NoCells bool `json:"no_cells"`
}

// ErrNoAgent says that the server has no agent: it refused a recipe as a corrupt state file.
var ErrNoAgent = errors.New("no agent in the server: start llama-server with LD_PRELOAD=libsemshare-agent.so to have tokens recomputed inside it")

// ErrLost says that the server broke off while the agent was at work in it, as it does
// where the agent ends it.
var ErrLost = errors.New("the backend was lost while the agent carried out a recipe")

// Cook has the agent carry out a recipe into a slot. After an error other than ErrUnsent
// the slot's content is unknown: erase it.
func (fl *Filler) Cook(ctx context.Context, slot int, r *Recipe) (Filled, AgentReply, error) {
	start := time.Now()
	path := fl.Store.recipePath()
	defer os.Remove(path)
	if err := r.WriteFile(path); err != nil {
		return Filled{}, AgentReply{}, fmt.Errorf("%w: cannot write the recipe: %w", ErrUnsent, err)
	}
	written := time.Since(start)
	if err := fl.emptyDraft(ctx, slot); err != nil {
		return Filled{}, AgentReply{}, fmt.Errorf("%w: %w", ErrUnsent, err)
	}
	reply, err := fl.Backend.Cook(ctx, slot, path, len(r.Tokens))
	if err != nil {
		return Filled{}, reply, err
	}
	compose := written + time.Duration(reply.Compose*float64(time.Millisecond))
	return Filled{Tokens: len(r.Tokens), Cells: reply.Cells, Compose: compose, Inject: time.Since(start) - compose}, reply, nil
}

// Cook has the server carry out a recipe, a file of its slot directory, into a slot.
// After an error other than ErrUnsent the slot's content is unknown: erase it.
func (b *Backend) Cook(ctx context.Context, slot int, recipe string, tokens int) (AgentReply, error) {
	path := recipe + ".reply"
	defer os.Remove(path)
	if err := makeReply(path); err != nil {
		return AgentReply{}, fmt.Errorf("%w: cannot make the file for the agent's reply: %w", ErrUnsent, err)
	}
	// A recipe that ends the server would end it a second time.
	n, err := b.Once().Restore(ctx, slot, filepath.Base(recipe))
	reply, replied := readReply(path)
	switch {
	case replied && reply.NoCells:
		return reply, fmt.Errorf("%w: the agent could not carry out the recipe: %s", ErrNoCells, reply.Error)
	case replied && reply.Error != "":
		return reply, fmt.Errorf("the agent could not carry out the recipe: %s", reply.Error)
	case err != nil && !replied:
		return reply, unheard(ctx, err)
	case err != nil:
		return reply, err
	case n != tokens:
		return reply, fmt.Errorf("%w: the agent restored %d tokens, the recipe has %d", ErrNotTaken, n, tokens)
	}
	return reply, nil
}

// makeReply creates the empty file that the agent writes its reply to. The sidecar creates it
// because it may not be able to read files of the server's user.
func makeReply(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// unheard returns the error for a recipe whose restore ended in err without an agent's reply.
// An answer of the server means that it has no agent: to a file that it cannot read, as a
// recipe is then, it answers that it has no cells.
func unheard(ctx context.Context, err error) error {
	var answer *BackendError
	var network *net.OpError
	switch {
	case errors.As(err, &answer):
		return fmt.Errorf("%w (%w)", ErrNoAgent, answer)
	case ctx.Err() != nil:
		return err
	case errors.As(err, &network) && network.Op == "dial":
		return fmt.Errorf("%w: %w", ErrUnsent, err)
	}
	return fmt.Errorf("%w: %w", ErrLost, err)
}

// readReply reads a reply; ok is false if no agent wrote one.
func readReply(path string) (r AgentReply, ok bool) {
	data, err := os.ReadFile(path)
	return r, err == nil && json.Unmarshal(data, &r) == nil
}
