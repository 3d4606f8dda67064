package proxy

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/semsharekv/semsharekv/bridge"
)

// A model's name, and even its file, may say less than is true of the weights that the
// server has in memory. So what they make of the probe's prompt is kept in the slot
// directory, and those of other weights under one model key have their references apart:
// they are neither mixed nor lost.

// weights are some that a model key was seen with.
type weights struct {
	// ID is part of the key of their references; "" of those that were seen first.
	ID   string         `json:"id"`
	Rows bridge.Witness `json:"rows"`
}

// maxWeights are remembered of a model key, the newest.
const maxWeights = 8

// witnessPath is the file of a model key.
func (sh *Sharer) witnessPath(key string) string {
	return filepath.Join(sh.cfg.Backend.SlotDir, "witness-"+key+".json")
}

// keyOfWeights is the key of references that the backend's weights make. A sidecar that
// leaves others' references alone finds none that other weights made, and remembers nothing.
func (sh *Sharer) keyOfWeights(lv *live) string {
	rows := lv.probed.Witness
	if rows == nil || sh.measured {
		return lv.key
	}
	path := sh.witnessPath(lv.key)
	known, err := readWeights(path)
	if i := slices.IndexFunc(known, func(w weights) bool { return rows.Like(w.Rows) }); i >= 0 {
		return known[i].key(lv.key)
	}
	now := weights{Rows: rows}
	if !errors.Is(err, fs.ErrNotExist) {
		now.ID = newID()
		sh.log.Warn().Err(err).Str("file", path).Msg("the backend's weights are others than before under the same model key: what those made is not used")
	}
	sh.remember(path, append(known[max(0, len(known)+1-maxWeights):], now))
	return now.key(lv.key)
}

func (w *weights) key(model string) string {
	if w.ID == "" {
		return model
	}
	return digest(model, w.ID)
}

func readWeights(path string) (known []weights, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return known, json.Unmarshal(b, &known)
}

func (sh *Sharer) remember(path string, known []weights) {
	b, err := json.Marshal(known)
	if err == nil {
		err = writeWhole(path, b)
	}
	if err != nil {
		sh.log.Warn().Err(err).Str("file", path).Msg("what tells the weights cannot be kept: other weights in a file of the same name may go unnoticed at the next start")
	}
}
