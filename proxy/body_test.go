package proxy

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/iotest"

	"github.com/valyala/fasthttp"
)

// bodyOf is a request whose body has that length by its head.
func bodyOf(r io.Reader, announced int) *fasthttp.RequestCtx {
	ctx := &fasthttp.RequestCtx{}
	ctx.Request.SetBodyStream(r, announced)
	return ctx
}

func TestABodyIsReadWhole(t *testing.T) {
	for _, n := range []int{0, 1, 511, 512, 513, maxAnnounced - 1, maxAnnounced, maxAnnounced + 1, 3*maxAnnounced + 7} {
		sent := bytes.Repeat([]byte("abcdefg"), n/7+1)[:n]
		for _, announced := range []int{n, -1} {
			got, err := readBody(bodyOf(bytes.NewReader(sent), announced), int64(n), 0)
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d bytes, %d announced: %d and %v", n, announced, len(got), err)
			}
			if cap(got) > 2*n+maxAnnounced {
				t.Errorf("%d bytes take %d", n, cap(got))
			}
		}
	}
	if _, err := readBody(bodyOf(bytes.NewReader(make([]byte, 10)), 20), 100, 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("10 bytes of 20: %v", err)
	}
	if _, err := readBody(bodyOf(bytes.NewReader(make([]byte, 101)), -1), 100, 0); !errors.Is(err, errBodyTooLarge) {
		t.Errorf("101 bytes of at most 100: %v", err)
	}
}

// TestABodyTakesMemoryAsItComes: a client that announces much and sends little costs little.
func TestABodyTakesMemoryAsItComes(t *testing.T) {
	const announced = 256 << 20
	gone := errors.New("gone")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := readBody(bodyOf(io.MultiReader(bytes.NewReader(make([]byte, 8<<10)), iotest.ErrReader(gone)), announced), announced, 0)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, gone) {
		t.Fatal(err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > announced/8 {
		t.Errorf("8 KiB of a body of %d MiB took %d MiB", announced>>20, took>>20)
	}
}
