package eval

import (
	"context"
	"errors"

	"github.com/semsharekv/semsharekv/configs"
)

// Options say what is measured and where the report goes.
type Options struct {
	// Backend is the base URL of the llama-server.
	Backend string
	// SlotDir is the server's --slot-save-path, as seen from here.
	SlotDir string
	// Pairs is the JSONL file of pairs; Out the folder of report.json and
	// report.html, made when absent.
	Pairs, Out string
	// AnswerTokens is how many answer positions are compared, at least 1.
	AnswerTokens int
	// Limit stops after that many pairs; 0 means all.
	Limit int
	// Config is the sidecar's configuration; nil means configs.Default. Its
	// backend and slot directory are replaced by those above where they are set.
	Config *configs.Config
}

// Run measures every pair and writes the report.
func Run(ctx context.Context, o Options) error { return errors.New("eval: not built yet") }
