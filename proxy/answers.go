package proxy

import (
	"context"
	"errors"
	"fmt"

	"github.com/semsharekv/semsharekv/bridge"
)

// answers asks whether the backend is there, with its model loaded.
func (sh *Sharer) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	err := sh.backend.Health(ctx)
	if err != nil {
		sh.unanswered(err)
		if bridge.Away(err) || bridge.Loading(err) {
			sh.refused = refusal{} // what comes is another one
		}
		return false
	}
	sh.silence = ""
	return true
}

// unanswered notes why the backend cannot be asked, and logs it when it begins and when it
// is something else. That a model is being loaded is nothing to warn of.
func (sh *Sharer) unanswered(err error) {
	sh.because(fmt.Sprintf("the backend at %s does not answer: %v; asked every second", sh.cfg.Backend.URL, err))
	why := root(err).Error()
	if why == sh.silence || errors.Is(err, context.Canceled) {
		return
	}
	sh.silence = why
	if !bridge.Loading(err) {
		sh.log.Warn().Err(err).Str("backend", sh.cfg.Backend.URL).Msg("the backend does not answer: it is asked every second")
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
