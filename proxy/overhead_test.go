package proxy

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// BenchmarkPassThrough measures what the sidecar adds to a short request to a real
// llama-server with a model so small that it hardly counts: each round asks the server
// straight and through the sidecar, in turn, and the medians of both and of their
// difference are reported. What passes through is forwarded as it is; a prompt that
// could be shared is first tokenized by the server and given a slot.
func BenchmarkPassThrough(b *testing.B) {
	model := tinymodel.Make(b, tinymodel.Options{Arch: "llama"})
	s := besides(b, lab.StartBackend(b, lab.BackendOptions{Model: model}), func(c *configs.Config) {
		c.Routes = []configs.Route{{Name: "off", Match: configs.Match{Headers: map[string]string{"X-Route": "off"}}, Policy: c.Defaults}}
		c.Routes[0].Policy.Reuse = configs.ReuseOff
	})
	f := func(name, path, body, route string) {
		b.Run(name, func(b *testing.B) {
			benchmarkPassThrough(b, s.backend.URL+path, s.url+path, body, route)
		})
	}
	f("tokenize", "/tokenize", `{"content":"hello"}`, "")
	const completion = `{"prompt":"hello","n_predict":1,"temperature":0}`
	f("completion/reuse off", "/completion", completion, "off")
	f("completion/reuse fuzzy", "/completion", completion, "")
}

func benchmarkPassThrough(b *testing.B, straight, through, body, route string) {
	c := freshClient(b)
	ask := func(url string) float64 {
		req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Route", route)
		start := time.Now()
		resp, err := c.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		took := time.Since(start)
		if resp.StatusCode != http.StatusOK {
			b.Fatalf("%s answers %s", url, resp.Status)
		}
		return float64(took.Microseconds()) / 1000
	}
	for range 20 { // connections, caches
		ask(straight)
		ask(through)
	}
	var s, t, added []float64
	for i := 0; b.Loop(); i++ {
		var d, p float64
		if i%2 == 0 {
			d, p = ask(straight), ask(through)
		} else {
			p, d = ask(through), ask(straight)
		}
		s, t, added = append(s, d), append(t, p), append(added, p-d)
	}
	b.ReportMetric(median(s), "straight-ms")
	b.ReportMetric(median(t), "through-ms")
	b.ReportMetric(median(added), "added-ms")
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
