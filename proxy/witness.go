package proxy

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/semsharekv/semsharekv/bridge"
)

// A model's name, and even its file, may say less than is true of the weights that the
// server has in memory. So what they make of the probe's prompt is kept in the slot
// directory, beside the references that they made.

// witnessPath is the file of a model key.
func (sh *Sharer) witnessPath(key string) string {
	return filepath.Join(sh.cfg.Backend.SlotDir, "witness-"+key+".json")
}

// testify drops the model's references where the backend's weights are not those that made
// them.
func (sh *Sharer) testify(lv *live) {
	path := sh.witnessPath(lv.key)
	w, err := readWitness(path)
	switch {
	case lv.probed.Witness == nil:
		return
	case errors.Is(err, fs.ErrNotExist):
	case err == nil && lv.probed.Witness.Like(w):
		return
	default:
		all := lv.store.All()
		sh.log.Warn().Err(err).Str("file", path).Int("references", len(all)).Msg("the backend's weights are not those that the references were made with: they are dropped")
		for _, m := range all {
			lv.store.Drop(m.ID, "other weights")
		}
	}
	b, err := json.Marshal(lv.probed.Witness)
	if err == nil {
		err = writeWhole(path, b)
	}
	if err != nil {
		sh.log.Warn().Err(err).Str("file", path).Msg("what tells the weights cannot be kept: other weights in a file of the same name may go unnoticed at the next start")
	}
}

func readWitness(path string) (w bridge.Witness, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return w, json.Unmarshal(b, &w)
}

// writeWhole writes a file in one step.
func writeWhole(path string, b []byte) error {
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
