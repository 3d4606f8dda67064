package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// AgentReply is what the agent says of a recipe that it carried out or refused.
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
	// Milliseconds.
	Compose   float64 `json:"compose_ms"`
	Recompute float64 `json:"recompute_ms"`
	Restore   float64 `json:"restore_ms"`
	Error     string  `json:"error"`
}

// ErrNoAgent says that the server treats recipes as the corrupt files that they
// are to a server without the agent.
var ErrNoAgent = errors.New("no agent in the server: start llama-server with LD_PRELOAD=libsemshare-agent.so to have tokens recomputed inside it")

// Cook has the server carry out the recipe file of that name in dir, into a slot.
// After an error the slot's content is unknown: erase it.
func (b *Backend) Cook(ctx context.Context, slot int, dir, file string, tokens int) (AgentReply, error) {
	path := filepath.Join(dir, file+".reply")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return AgentReply{}, fmt.Errorf("cannot remove the agent's last reply: %w", err)
	}
	n, err := b.Restore(ctx, slot, file)
	reply, replied := readReply(path)
	switch {
	case replied && reply.Error != "":
		return reply, fmt.Errorf("the agent could not carry out the recipe: %s", reply.Error)
	case err != nil && !replied:
		return reply, fmt.Errorf("%w (%w)", ErrNoAgent, err)
	case err != nil:
		return reply, err
	case n != tokens:
		return reply, fmt.Errorf("%w: the agent restored %d tokens, the recipe has %d", ErrNotTaken, n, tokens)
	}
	return reply, nil
}

// readReply reads and removes a reply. Where the server cannot write there, there
// is none.
func readReply(path string) (AgentReply, bool) {
	var r AgentReply
	data, err := os.ReadFile(path)
	if err != nil {
		return r, false
	}
	_ = os.Remove(path)
	return r, json.Unmarshal(data, &r) == nil
}
