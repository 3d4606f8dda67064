package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/rs/zerolog"
)

// Read passes on the answer's body. It must not panic: fasthttp would lose
// the whole process.
func (x *exchange) Read(p []byte) (n int, err error) {
	defer func() {
		if r := recover(); r != nil {
			x.panicked(r)
			n, err = 0, errPanic
		}
	}()
	n, err = x.answer.body.Read(p)
	x.allowWrite(x.conn)
	if n > 0 {
		if x.bytesOut == 0 {
			x.firstByte = time.Now()
		}
		x.bytesOut += int64(n)
		if x.tally != nil {
			x.tally.add(p[:n])
		}
	}
	switch {
	case err == io.EOF:
		x.complete = true
	case err != nil:
		x.fail(err)
		err = x.err
	}
	return n, err
}

// allowWrite gives the client time to take what is written to it next. The first time it
// is the request's context that is told, so that the deadline ends with the answer.
func (x *exchange) allowWrite(c interface{ SetWriteDeadline(time.Time) error }) {
	_ = c.SetWriteDeadline(time.Now().Add(x.server.idle))
}

// Close ends the exchange once the client has the answer, or will not get it.
func (x *exchange) Close() error {
	x.end()
	return nil
}

// fail notes why the exchange broke: the client's leaving, the server's
// shutdown, or what the backend did.
func (x *exchange) fail(err error) {
	if x.err != nil {
		return
	}
	x.err = err
	if x.ctx.Err() != nil {
		x.err = context.Cause(x.ctx)
	}
}

// end frees the connection and has the outcome reported, exactly once.
func (x *exchange) end() {
	if x.ended {
		return
	}
	x.ended = true
	x.server.hangups.remove(x.hangup)
	switch {
	case x.answer == nil:
	case x.complete:
		x.answer.release()
	default:
		x.answer.close()
		x.fail(errClientGone) // if nothing was noted yet, the backend was still sending: the client's side broke
	}
	x.cancel(nil)
	// The last bytes of the answer still wait in fasthttp's buffer: what is
	// slow must not hold them up.
	x.server.settling.Go(x.report)
}

// report counts and logs the outcome.
func (x *exchange) report() {
	defer func() {
		if r := recover(); r != nil {
			x.panicked(r)
		}
	}()
	m := x.server.metrics
	m.InFlight.Dec()
	o := outcome{Err: errPanic, CacheN: -1, PromptN: -1}
	if x.decision != nil {
		defer func() { x.decision.finish(x.server.base, o) }() // whatever happens here, the slot must be freed
	}
	if x.passed != nil {
		defer func() { x.passed(o) }()
	}
	o = x.outcome()
	switch {
	case o.ClientGone:
		m.ClientGone.Inc()
	case x.err != nil && !errors.Is(x.err, errDraining) && !errors.Is(x.err, errPanic):
		m.BackendErrors.Inc()
	}
	endpoint, state, reason := "pass", "pass", ""
	if x.endpoint != "" {
		endpoint, state = string(x.endpoint), "failed"
	}
	if d := x.decision; d != nil {
		state, reason = string(d.State), d.Reason
		if x.comparable() {
			m.FirstByte.WithLabelValues(state).Observe(x.firstByte.Sub(x.start).Seconds())
		}
	}
	m.Requests.WithLabelValues(endpoint, state, reason).Inc()
	m.Statuses.WithLabelValues(statusClass(x.status)).Inc()
	x.log(endpoint, state, reason, o)
}

// comparable reports whether the time to the first byte is counted: only that of answers to
// prompts long enough to be looked up. Refusals and short prompts are all cold, and would make
// cold requests look fast.
func (x *exchange) comparable() bool {
	d := x.decision
	return !x.firstByte.IsZero() && x.status/100 == 2 && d.tokens != nil && len(d.tokens) >= d.req.Policy.MinTokens
}

func (x *exchange) outcome() outcome {
	o := outcome{Status: x.status, Err: x.err, ClientGone: errors.Is(x.err, errClientGone), CacheN: -1, PromptN: -1}
	if x.tally != nil {
		x.tally.scan()
		o.CacheN, o.PromptN, o.PromptMS = x.tally.cacheN, x.tally.promptN, x.tally.promptMS
		o.PredictedN, o.Failed = x.tally.predictedN, x.failed()
		o.Began = o.ClientGone && x.tally.begun && !o.Failed
	}
	return o
}

// failed reports whether the answer shows that it failed, or does not show that it did not: a
// stream may come to its end with nothing in it, such as one that was ended elsewhere. A document
// says so by its status, and may hold an object "error" that the model wrote for a tool.
func (x *exchange) failed() bool {
	t := x.tally
	stream := x.answer != nil && bytes.HasPrefix(x.answer.head.ContentType(), []byte("text/event-stream"))
	switch {
	case stream && t.failed:
		return true
	case t.cacheN >= 0, t.begun:
		return false
	}
	return stream || x.bytesOut == 0
}

// log writes the request's one line: no text of the prompt or the answer, no
// header, no query.
func (x *exchange) log(endpoint, state, reason string, o outcome) {
	level := zerolog.InfoLevel
	if x.err != nil && !o.ClientGone && !errors.Is(x.err, errDraining) {
		level = zerolog.WarnLevel
	}
	e := x.server.log.WithLevel(level)
	if e == nil {
		return
	}
	e = e.Str("method", x.method).Str("path", x.path).Str("endpoint", endpoint).Int("status", x.status).
		Int("bytes_in", x.bytesIn).Int64("bytes_out", x.bytesOut).
		Float64("ms", milliseconds(time.Since(x.start)))
	if req := x.req; req != nil {
		e = e.Str("id", req.ID).Str("route", req.Route).Str("state", state).Str("reason", reason).
			Int("cache_n", o.CacheN).Int("prompt_n", o.PromptN)
	}
	if x.decision != nil {
		e = e.Int("slot", x.decision.Slot).Str("did", x.decision.Header)
	}
	if !x.firstByte.IsZero() {
		e = e.Float64("first_byte_ms", milliseconds(x.firstByte.Sub(x.start)))
	}
	if x.err != nil {
		e = e.Str("error", x.err.Error())
	}
	e.Msg("request")
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func statusClass(status int) string {
	if status < 100 || status > 599 {
		return "none"
	}
	return strconv.Itoa(status/100) + "xx"
}
