package proxy

import (
	"context"
	"errors"

	"github.com/semsharekv/semsharekv/bridge"
)

// Room in a cache whose cells all slots share (--kv-unified). The backend empties idle slots
// where a batch finds no cells, and never where a restore does.

// withRoom carries out fill, and a second time where it found no cells and some could be had.
func (d *decision) withRoom(ctx context.Context, fill func() error) error {
	err := d.touching(fill())
	if errors.Is(err, bridge.ErrNoCells) && d.makeRoom(ctx) {
		err = d.touching(fill())
	}
	return err
}

// touching notes whether a fill that ended in err did anything to the slot.
func (d *decision) touching(err error) error {
	d.touched = d.touched || !errors.Is(err, bridge.ErrUnsent)
	return err
}

// makeRoom empties slots that nobody uses, the one used least recently first, until they held
// as many tokens as the prompt has. It reports whether they held any.
func (d *decision) makeRoom(ctx context.Context) bool {
	busy, ok := d.sh.backend.Busy(ctx)
	if d.lv.probed.Layout.Streams != 1 || !ok {
		return false
	}
	idle := func(sl *slot) bool { return sl.id < len(busy) && !busy[sl.id] }
	held := 0
	for held < len(d.tokens) {
		sl := d.book.takeOldest(idle)
		if sl == nil {
			break
		}
		busy[sl.id] = true
		n, err := d.sh.backend.Empty(ctx, sl.id)
		if err != nil {
			d.book.release(sl, "", nil, sl.generation)
			break
		}
		d.book.emptied(sl)
		held += n
	}
	return held > 0
}
