package proxy

import "time"

// The server saves and empties slots between two batches, whatever slots these are of.

const (
	// serverBatch is how many tokens llama-server computes in one go, by default (--batch-size).
	serverBatch = 2048
	// batchesWaited is how many such batches a call may take: it waits for one, and the price
	// of a token is an estimate.
	batchesWaited = 3
)

// patience is the timeout of a call that saves or empties a slot: `least`, or what
// batchesWaited batches at the end of another slot's context are expected to take, if that is
// longer.
func (lv *live) patience(least time.Duration) time.Duration {
	end := lv.probed.Props.Context
	ms := batchesWaited * lv.costs.model().Long(max(0, end-serverBatch), end)
	return max(least, time.Duration(ms*float64(time.Millisecond)))
}
