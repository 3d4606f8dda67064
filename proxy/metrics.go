package proxy

import (
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/valyala/fasthttp"

	"github.com/semsharekv/semsharekv/bridge"
)

// Metrics are the sidecar's counters. The HTTP layer fills those of the first
// group; the sharer fills the second. All are safe
// for concurrent use. Label values come from fixed sets, never from clients.
type Metrics struct {
	registry *prometheus.Registry

	// Requests over: endpoint (chat, completion, ..., pass), state (shared,
	// exact, cold, pass, failed) and reason.
	Requests *prometheus.CounterVec
	// Statuses of answers by class: 2xx, 4xx, ..., none where no answer came.
	Statuses *prometheus.CounterVec
	// InFlight requests, from reading to the end of the answer.
	InFlight prometheus.Gauge
	// Connections of clients that are open.
	Connections prometheus.Gauge
	// FirstByte is the time from reading a generation request to the first byte
	// of its answer's body, by state; see exchange.comparable.
	FirstByte *prometheus.HistogramVec
	// ClientGone counts clients that hung up before their answer was complete.
	ClientGone prometheus.Counter
	// BackendErrors counts exchanges that the backend broke off or refused.
	BackendErrors prometheus.Counter
	// Panics recovered: in sharing the request goes cold, elsewhere it is lost.
	Panics prometheus.Counter
	// Reloads of the configuration by result: ok, error.
	Reloads *prometheus.CounterVec
	// ReloadOK is 1 where the last reload worked; ReloadTime is when one last
	// did, in unix seconds.
	ReloadOK, ReloadTime prometheus.Gauge

	// Tokens of prompts by what became of them: reused, recomputed.
	Tokens *prometheus.CounterVec
	// Steps times the steps of preparing and capturing: tokens, lookup, align,
	// compose, inject, capture.
	Steps *prometheus.HistogramVec
	// StoreBytes and StoreReferences are what the reference store holds.
	StoreBytes, StoreReferences prometheus.Gauge
	// Captures by result: kept, or why not.
	Captures *prometheus.CounterVec
	// Mismatches counts restores that the backend's own cache_n did not confirm.
	Mismatches prometheus.Counter
	// Dropped references by reason.
	Dropped *prometheus.CounterVec
	// IndexErrors counts look-ups and writes that failed or came too late, and looks at the
	// index beside requests.
	IndexErrors prometheus.Counter
	// Sharing is 1 while sharing with the backend is on.
	Sharing prometheus.Gauge
	// How it is shared, as long as Sharing is 1: by the agent, with a calibration, by the
	// identity of tokens alone.
	Agent, Calibrated, Identity prometheus.Gauge
}

// NewMetrics makes the counters in a registry of their own, with those of the
// Go runtime and the process.
func NewMetrics() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	m.Requests = m.counters("requests_total", "Requests that are over.", "endpoint", "state", "reason")
	m.Statuses = m.counters("responses_total", "Answers by class of status.", "class")
	m.InFlight = m.gauge("requests_in_flight", "Requests being served.")
	m.Connections = m.gauge("connections_open", "Connections of clients that are open.")
	m.FirstByte = m.times("first_byte_seconds", "Time from reading a generation request to the first byte of its 2xx answer, where the prompt is long enough to be looked up.", "state")
	m.ClientGone = m.counter("client_cancellations_total", "Clients that hung up before the end of their answer.")
	m.BackendErrors = m.counter("backend_errors_total", "Exchanges that the backend refused or broke off.")
	m.Panics = m.counter("panics_total", "Panics recovered.")
	m.Reloads = m.counters("config_reloads_total", "Reloads of the configuration.", "result")
	m.ReloadOK = m.gauge("config_last_reload_successful", "Whether the last reload worked.")
	m.ReloadTime = m.gauge("config_last_reload_success_timestamp_seconds", "When a reload last worked.")

	m.Tokens = m.counters("prompt_tokens_total", "Prompt tokens by what became of them.", "fate")
	m.Steps = m.times("step_seconds", "Time of each step of sharing.", "step")
	m.StoreBytes = m.gauge("store_bytes", "Bytes of references kept.")
	m.StoreReferences = m.gauge("store_references", "References kept.")
	m.Captures = m.counters("captures_total", "Prompts considered as references.", "result")
	m.Mismatches = m.counter("restore_mismatches_total", "Restores that the backend's cache_n did not confirm.")
	m.Dropped = m.counters("references_dropped_total", "References dropped.", "reason")
	m.IndexErrors = m.counter("index_errors_total", "Failed or late calls to the index.")
	m.Sharing = m.gauge("sharing", "Whether sharing with the backend is on.")
	m.Agent = m.gauge("agent", "Whether slots are filled by the agent.")
	m.Calibrated = m.gauge("calibrated", "Whether quality.kl has a calibration of the model to go by.")
	m.Identity = m.gauge("identity_matching", "Whether tokens are matched by identity alone.")

	m.ReloadOK.Set(1)
	m.ReloadTime.SetToCurrentTime()
	m.begin()
	return m
}

// begin makes the series that alerts watch: the increase of one that begins at 1 is 0.
func (m *Metrics) begin() {
	for _, class := range []string{"2xx", "3xx", "4xx", "5xx", "none"} {
		m.Statuses.WithLabelValues(class)
	}
	for _, reason := range bridge.DropReasons {
		m.Dropped.WithLabelValues(reason)
	}
}

// connection follows the connections of clients.
func (m *Metrics) connection(_ net.Conn, state fasthttp.ConnState) {
	switch state {
	case fasthttp.StateNew:
		m.Connections.Inc()
	case fasthttp.StateClosed, fasthttp.StateHijacked:
		m.Connections.Dec()
	}
}

const namespace = "semsharekv"

func (m *Metrics) counter(name, help string) prometheus.Counter {
	return promauto.With(m.registry).NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
}

func (m *Metrics) counters(name, help string, labels ...string) *prometheus.CounterVec {
	return promauto.With(m.registry).NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

func (m *Metrics) gauge(name, help string) prometheus.Gauge {
	return promauto.With(m.registry).NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help})
}

// times buckets from 0.1 ms, a look-up, to 100 s, a long cold prefill.
func (m *Metrics) times(name, help string, labels ...string) *prometheus.HistogramVec {
	return promauto.With(m.registry).NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: name, Help: help,
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 25, 50, 100},
	}, labels)
}

// Handler serves the counters in Prometheus's text format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
