package proxy

import (
	"io"
	"net"

	"github.com/valyala/fasthttp"
)

// unframed passes an answer whose length nobody knows yet on to a client of HTTP/1.0, as it
// comes. Such a client knows no chunks, in which fasthttp would send it: the body ends where
// the connection does. It is written from within the handler, so that fasthttp counts the
// connection as in use; nothing of an earlier answer waits to be written before it, since
// allowWrite has each flushed.
func (x *exchange) unframed(ctx *fasthttp.RequestCtx) {
	defer x.end()
	ctx.HijackSetNoResponse(true)
	ctx.Hijack(func(net.Conn) {}) // fasthttp closes the connection after it
	head := &ctx.Response.Header
	head.SetConnectionClose()
	x.allowWrite(x.conn)
	_, err := x.conn.Write(head.Header())
	if err == nil {
		_, err = io.Copy(x.conn, x)
	}
	if c, ok := x.conn.(*net.TCPConn); ok && err != nil {
		_ = c.SetLinger(0) // a reset, as an orderly end would make what was cut off look whole
	}
}
