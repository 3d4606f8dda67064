package proxy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/matcher"
)

// indexPoll is how often the index is asked whether it lost anything.
const indexPoll = 5 * time.Second

// indexSecret is the configured HMAC key, or one made at the first start.
func indexSecret(cfg *configs.Config) ([]byte, error) {
	secret, path, err := cfg.IndexSecret()
	if errors.Is(err, fs.ErrNotExist) && cfg.Index.SecretFile == "" {
		return newSecret(path)
	}
	return secret, err
}

// newSecret makes a key. Where the directory cannot be written it lasts for this
// run alone.
func newSecret(path string) ([]byte, error) {
	secret := []byte(hex.EncodeToString(randomBytes(32)))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return secret, nil //nolint:nilerr // the probe reports a directory that cannot be written
	}
	_, err = f.Write(secret)
	return secret, errors.Join(err, f.Close())
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// keepIndexed keeps the store's references in the index, which may be new, or be
// wiped, or forget by its TTL.
func (sh *Sharer) keepIndexed(lv *live) {
	sh.index.Watch(lv.ctx, indexPoll, func(ctx context.Context) error {
		err := sh.reindex(ctx, lv)
		if err != nil && ctx.Err() == nil {
			sh.metrics.IndexErrors.Inc()
			sh.log.Warn().Err(err).Msg("the index could not be rebuilt yet")
		}
		return err
	})
}

// reindex puts all references into the index.
func (sh *Sharer) reindex(ctx context.Context, lv *live) error {
	if !lv.users.begin() {
		return nil // being closed
	}
	defer lv.users.end()
	for _, m := range lv.store.All() {
		p, err := lv.store.Prompt(m.ID)
		if err != nil {
			continue // dropped meanwhile
		}
		if err := sh.index.Add(ctx, lv.scope(m.Tenant), m.ID, lv.signer.Fingerprint(p.Tokens)); err != nil {
			return err
		}
	}
	return nil
}

func (lv *live) scope(tenant string) matcher.Scope {
	return matcher.Scope{Tenant: tenant, Model: lv.key}
}

// dropped counts a reference that left the store and takes it out of the index.
func (sh *Sharer) dropped(lv *live, m bridge.Meta, reason string) {
	sh.metrics.Dropped.WithLabelValues(reason).Inc()
	sh.gauges(lv)
	sh.forget(m)
}

// forget takes a dropped reference out of the index.
func (sh *Sharer) forget(m bridge.Meta) {
	if err := sh.index.Remove(context.Background(), matcher.Scope{Tenant: m.Tenant, Model: m.Model}, m.ID); err != nil {
		sh.metrics.IndexErrors.Inc()
	}
}
