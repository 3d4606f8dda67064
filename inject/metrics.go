package inject

import (
	"github.com/prometheus/client_golang/prometheus"
	crmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
)

// metrics are the webhook's own; controller-runtime counts its requests and
// their time beside them.
type metrics struct {
	pods        *prometheus.CounterVec // by what was done and why not
	missed      prometheus.Gauge
	certificate prometheus.Gauge
	rotations   prometheus.Counter
	failures    prometheus.Counter // of keeping the certificate
}

func newMetrics() *metrics {
	return &metrics{
		pods: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "semsharekv_inject_pods_total",
			Help: "Pods that were asked about, by result (injected, refused, skipped: no llama-server in a labelled namespace, unchanged, failed) and the kind of refusal.",
		}, []string{"result", "kind"}),
		missed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "semsharekv_inject_missed_pods",
			Help: "Running pods with the annotation semsharekv.io/inject: \"true\" that the webhook never saw: it was down when they were created.",
		}),
		certificate: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "semsharekv_inject_certificate_expiry_seconds",
			Help: "When the serving certificate expires, as Unix time.",
		}),
		rotations: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "semsharekv_inject_certificate_rotations_total",
			Help: "Certificates made by this replica.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "semsharekv_inject_certificate_failures_total",
			Help: "Attempts to keep the certificate or the webhook's caBundle up to date that failed.",
		}),
	}
}

func (m *metrics) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(m.pods, m.missed, m.certificate, m.rotations, m.failures)
	return r
}

// gatherer joins ours with controller-runtime's.
func (m *metrics) gatherer() prometheus.Gatherer {
	return prometheus.Gatherers{m.registry(), crmetrics.Registry}
}
