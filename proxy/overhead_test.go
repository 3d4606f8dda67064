package proxy

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkPassThrough measures what the sidecar adds to a short request:
// each round asks the backend straight and through the sidecar, in turn, and
// the medians of both and of their difference are reported.
func BenchmarkPassThrough(b *testing.B) {
	backend := startBackend(b, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"tokens":[1,2,3]}`)
	})
	s := startSidecar(b, backend.URL, nil)
	c := freshClient(b)
	ask := func(url string) float64 {
		start := time.Now()
		resp, err := c.Post(url+"/tokenize", "application/json", strings.NewReader(`{"content":"hello"}`))
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return float64(time.Since(start).Microseconds()) / 1000
	}
	for range 50 { // connections, caches
		ask(backend.URL)
		ask(s.url)
	}
	var straight, through, added []float64
	for i := 0; b.Loop(); i++ {
		var d, p float64
		if i%2 == 0 {
			d, p = ask(backend.URL), ask(s.url)
		} else {
			p, d = ask(s.url), ask(backend.URL)
		}
		straight, through, added = append(straight, d), append(through, p), append(added, p-d)
	}
	b.ReportMetric(median(straight), "straight-ms")
	b.ReportMetric(median(through), "through-ms")
	b.ReportMetric(median(added), "added-ms")
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
