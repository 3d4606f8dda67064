package proxy

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/matcher"
)

// indexPoll is how often the index is asked whether it lost anything, and the directory
// looked at for what other sidecars put there.
const indexPoll = 5 * time.Second

// indexSecret is the configured HMAC key, or one made at the first start.
func indexSecret(cfg *configs.Config) ([]byte, error) {
	secret, path, err := cfg.IndexSecret()
	if errors.Is(err, fs.ErrNotExist) && cfg.Index.SecretFile == "" {
		return lasting(path)
	}
	return secret, err
}

// keepIndexed keeps the store's references in the index, which may be new, or be
// wiped, or forget by its TTL, and those that other sidecars put into the directory.
func (sh *Sharer) keepIndexed(lv *live) {
	failing := false
	sh.index.Watch(lv.ctx, indexPoll, matcher.Kept{
		List: func() []string { return sh.referenceIDs(lv) },
		Add:  func(ctx context.Context, id string) error { return sh.reindex(ctx, lv, id) },
		Looked: func(err error) {
			if err != nil {
				sh.metrics.IndexErrors.Inc()
				if !failing {
					sh.log.Warn().Err(err).Msg("the index does not answer, or could not be rebuilt yet")
				}
			}
			failing = err != nil
		},
	})
}

// referenceIDs are the ids of all references in the directory.
func (sh *Sharer) referenceIDs(lv *live) []string {
	if !lv.users.begin() {
		return nil // being closed
	}
	defer lv.users.end()
	lv.store.Refresh()
	sh.gauges(lv)
	var ids []string
	for _, m := range lv.store.All() {
		ids = append(ids, m.ID)
	}
	return ids
}

// reindex puts a reference into the index.
func (sh *Sharer) reindex(ctx context.Context, lv *live, id string) error {
	if !lv.users.begin() {
		return nil // being closed
	}
	defer lv.users.end()
	p, err := lv.store.Prompt(id)
	if err != nil {
		return nil // dropped meanwhile
	}
	return sh.index.Add(ctx, sh.scope(p.Tenant, lv.refKey), id, lv.signer.Fingerprint(p.Tokens), p.Used)
}

// scope is where the index keeps a tenant's references, model being the key of theirs.
func (sh *Sharer) scope(tenant, model string) matcher.Scope {
	return matcher.Scope{Tenant: tenant, Model: model, Store: sh.directory}
}

// dropped counts a reference that left the store, which may just be opened, and takes it
// out of the index. One that nobody meant to go is logged.
func (sh *Sharer) dropped(lv *live, m bridge.Meta, reason string) {
	sh.metrics.Dropped.WithLabelValues(reason).Inc()
	switch reason {
	case bridge.DropCorrupt, bridge.DropUnsupported, bridge.DropMissing, bridge.DropUnreadable:
		sh.log.Warn().Str("reference", m.ID).Str("reason", reason).Msg("a reference was dropped")
	}
	if lv.store != nil {
		sh.gauges(lv)
	}
	sh.unindex(m)
}

// unindex takes a dropped reference, which may be of another model, out of the index.
func (sh *Sharer) unindex(m bridge.Meta) {
	if err := sh.index.Remove(context.Background(), sh.scope(m.Tenant, m.Model), m.ID); err != nil {
		sh.metrics.IndexErrors.Inc()
	}
}
