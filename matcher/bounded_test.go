package matcher

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/alicebob/miniredis/v2"
)

// sent is a connection by which that comes.
type sent struct {
	net.Conn
	io.Reader
}

func (s sent) Read(p []byte) (int, error) { return s.Reader.Read(p) }

func TestAnswersOfRedisAreBounded(t *testing.T) {
	f := func(answer string, fine bool) {
		t.Helper()
		for _, r := range []io.Reader{strings.NewReader(answer), iotest.OneByteReader(strings.NewReader(answer))} {
			got, err := io.ReadAll(bounded(sent{Reader: r}))
			if (err == nil) != fine || fine && string(got) != answer {
				t.Errorf("%.60q: read %d of %d bytes, error %v; want none: %v", answer, len(got), len(answer), err, fine)
			}
		}
	}
	text := func(n int) string { return fmt.Sprintf("$%d\r\n%s\r\n", n, strings.Repeat("\n$9", n)[:n]) }
	f("", true)
	f("+OK\r\n:99999\r\n*99999\r\n$-1\r\n-ERR of 99999\r\n_\r\n"+text(0)+text(3)+text(maxString), true)
	f(text(maxString+1), false)
	f(text(5)+"$-1\r\n+$9\r\n"+text(maxString+1), false)
	f("$99999\r\n", false) // before there is any of it
	f("=99999\r\n", false)
	f("!99999\r\n", false)
	f("$99999999999999999999999999\r\n", false)
	f("+"+strings.Repeat("a", maxAnswer-3)+"\r\n", true)
	f("+"+strings.Repeat("a", maxAnswer-2)+"\r\n", false)
}

// TestWhatOthersWriteToRedisTakesNoMemory: the index goes without.
func TestWhatOthersWriteToRedisTakesNoMemory(t *testing.T) {
	f := func(scheme string) {
		t.Helper()
		m := miniredis.RunT(t)
		x := openTest(t, IndexOptions{URL: scheme + "://" + m.Addr()})
		fp := IdentitySigner(1).Fingerprint(prose(1, 800))
		mustAdd(t, x, testScope, "a", fp)
		if got := mustFind(t, x, testScope, fp); len(got.Candidates) != 1 {
			t.Errorf("%s: found %+v; want one", scheme, got)
		}
		k, long := x.keys(testScope), strings.Repeat("a", maxString+1)
		_, err := m.ZAdd(k.posting(fp.Keys[0]), 1e15, long)
		if err = errors.Join(err, m.Set(k.entry("b"), long)); err != nil {
			t.Fatal(err)
		}
		ends := func(what string, err error) {
			t.Helper()
			if err == nil || !strings.Contains(err.Error(), "string of more than") {
				t.Errorf("%s: %s of %d bytes is read: error %v", scheme, what, len(long), err)
			}
			x.rest = breaker{}
		}
		ends("an entry", x.Remove(t.Context(), testScope, "b"))
		_, err = x.Find(t.Context(), testScope, fp, 8)
		ends("a member", err)
	}
	noLeaks(t)
	f("redis")
	f("redis+cluster")
}
