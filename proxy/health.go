package proxy

import (
	"context"
	"errors"
	"fmt"

	"github.com/semsharekv/semsharekv/bridge"
)

// answers asks whether the backend is there, with its model loaded.
func (w *watch) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	err := w.sh.backend.Health(ctx)
	if err != nil {
		w.unanswered(err)
		if bridge.Away(err) || bridge.Loading(err) {
			w.refused = refusal{} // what comes is another one
		}
		return false
	}
	w.silence = ""
	return true
}

// unanswered notes why the backend cannot be asked, and logs it when it begins and when it
// is something else. That a model is being loaded is nothing to warn of.
func (w *watch) unanswered(err error) {
	w.sh.because(fmt.Sprintf("the backend at %s does not answer: %v; asked every second", w.sh.cfg.Backend.URL, err))
	why := root(err).Error()
	if why == w.silence || errors.Is(err, context.Canceled) {
		return
	}
	w.silence = why
	if !bridge.Loading(err) {
		w.sh.log.Warn().Err(err).Str("backend", w.sh.cfg.Backend.URL).Msg("the backend does not answer: it is asked every second")
	}
}

// root is an error without what was being done, which may name another port each time.
func root(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
