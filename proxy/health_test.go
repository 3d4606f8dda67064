package proxy

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/configs"
)

// TestABackendThatIsNotThereIsNamed, in the log once and by /readyz.
func TestABackendThatIsNotThereIsNamed(t *testing.T) {
	f := func(name, backend, log, ready string) {
		t.Helper()
		s := startSidecar(t, backend, func(c *configs.Config) { c.Backend.SlotDir = t.TempDir() })
		within(t, name+": it was asked", func() bool { return strings.Contains(s.sharer.Ready().Error(), "does not answer") })
		time.Sleep(probeEvery + 200*time.Millisecond) // and once more
		status, said := ask(t, http.MethodGet, s.admin+"/readyz", "")
		if status != http.StatusServiceUnavailable || !strings.Contains(said, ready) {
			t.Errorf("%s: /readyz answers %d %q, want 503 and %q", name, status, said, ready)
		}
		s.stop()
		if text := s.log.String(); strings.Count(text, "the backend does not answer") != 1 || !strings.Contains(text, log) {
			t.Errorf("%s: the log says %s, want %q once", name, text, log)
		}
	}
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	f("nobody there", gone.URL, "connection refused", "connection refused")
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	f("something else", other.URL, "status 404", "/health says 404")
}
