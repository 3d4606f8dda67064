package proxy

import (
	"net"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// patientListener takes no want of descriptors or memory for the end of the listener, as
// fasthttp would: it waits until one of them is free.
type patientListener struct {
	net.Listener
	log    zerolog.Logger
	warned time.Time
}

const (
	// acceptAfter is how long it takes to try again at first, each time twice as long, up to
	// acceptAtMost.
	acceptAfter  = 5 * time.Millisecond
	acceptAtMost = time.Second
	// warnEvery is how often a want that lasts is told.
	warnEvery = time.Minute
)

// Accept waits for the next connection. Only one goroutine may call it.
func (l *patientListener) Accept() (net.Conn, error) {
	for wait := acceptAfter; ; wait = min(2*wait, acceptAtMost) {
		c, err := l.Listener.Accept()
		if !isWant(err) {
			return c, err
		}
		if time.Since(l.warned) > warnEvery {
			l.warned = time.Now()
			l.log.Warn().Err(err).Msg("connections have to wait")
		}
		time.Sleep(wait)
	}
}

// isWant tells whether an error says that the system has no more of something for now.
func isWant(err error) bool { return isAny(err, unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM) }
