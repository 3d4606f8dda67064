package inject

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/semsharekv/semsharekv/configs"
)

const (
	// oldestMinor is the first Kubernetes 1.x that runs native sidecars without
	// being asked to; older ones would wait for the sidecar to end.
	oldestMinor = 29
	// keepEvery is how often the certificate is looked at.
	keepEvery = time.Minute
	// startTries and startPause bound the wait for the first certificate.
	startTries = 30
	startPause = 2 * time.Second
	// adminTimeout bounds what a client of the admin side may take.
	adminTimeout = 10 * time.Second
)

// Options say how the webhook runs.
type Options struct {
	Settings Settings
	Listen   string // HOST:PORT of the webhook, HTTPS
	Admin    string // HOST:PORT of /healthz, /readyz and /metrics
	// CertDir has tls.crt and tls.key, which others (cert-manager) keep; where it
	// is empty they are self-made, and Secret, Host and Configuration must be set.
	CertDir       string
	Secret        types.NamespacedName
	Host          string // of the Service, as semsharekv-inject.semsharekv.svc
	Configuration string // name of the MutatingWebhookConfiguration
	// MissedEvery is how often pods that were missed are counted; 0: never.
	MissedEvery time.Duration
	// Linger is how long to go on answering once asked to end: until then the API
	// server may still send pods here.
	Linger  time.Duration
	Cluster *rest.Config
	Log     zerolog.Logger
}

// Check reports the first of the options that cannot be.
func (o *Options) Check() error {
	if o.Settings.Image == "" {
		return errors.New("--image is missing; want the image of the sidecar")
	}
	if err := configs.CheckAddress(o.Listen); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if err := configs.CheckAddress(o.Admin); err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	if o.MissedEvery < 0 {
		return fmt.Errorf("missed pods are to be counted every %v; want more than 0, or 0 for never", o.MissedEvery)
	}
	if o.Linger < 0 {
		return fmt.Errorf("the webhook is to linger for %v; want 0 or more", o.Linger)
	}
	if err := o.Settings.Check(); err != nil {
		return err
	}
	if o.CertDir == "" && (o.Secret.Namespace == "" || o.Secret.Name == "" || o.Host == "" || o.Configuration == "") {
		return errors.New("there is no certificate; want --cert-dir, or --cert-secret NAMESPACE/NAME with --service and --webhook")
	}
	return nil
}

// Run answers the API server until the context has ended, and a while longer.
func Run(ctx context.Context, o Options) error {
	m := newMetrics()
	in := &injector{settings: o.Settings, metrics: m, log: o.Log}
	var err error
	if in.unfit, err = unfit(o.Cluster); err != nil {
		return err
	}
	c, err := newClient(o.Cluster)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	server, err := o.server(ctx, c, m)
	if err != nil {
		return err
	}
	server.Register(Path, &admission.Webhook{Handler: in})
	if o.MissedEvery > 0 {
		go watchMissed(ctx, c, o.MissedEvery, m, o.Log)
	}
	admin := &http.Server{Addr: o.Admin, Handler: adminSide(server, m), ReadTimeout: adminTimeout, WriteTimeout: adminTimeout, IdleTimeout: adminTimeout}
	failed := make(chan error, 2)
	go func() { failed <- admin.ListenAndServe() }()
	go func() { failed <- server.Start(later(ctx, o.Linger)) }()
	o.Log.Info().Str("listen", o.Listen).Str("admin", o.Admin).Str("image", o.Settings.Image).Msg("injecting")
	select {
	case err = <-failed:
	case <-ctx.Done():
		err = <-failed // the webhook's, once requests under way have ended
	}
	_ = admin.Close()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// later is a context that ends a while after another.
func later(ctx context.Context, while time.Duration) context.Context {
	late, end := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() { time.AfterFunc(while, end) })
	return late
}

// server makes the HTTPS side with its certificate.
func (o *Options) server(ctx context.Context, c client.Client, m *metrics) (webhook.Server, error) {
	host, text, err := net.SplitHostPort(o.Listen)
	number, perr := strconv.Atoi(text)
	if err != nil || perr != nil || number < 1 || number > 65535 {
		return nil, fmt.Errorf("%q is not an address; want HOST:PORT as :9443", o.Listen)
	}
	so := webhook.Options{Host: host, Port: number, CertDir: o.CertDir}
	so.TLSOpts = append(so.TLSOpts, func(t *tls.Config) { t.MinVersion = tls.VersionTLS12 })
	if o.CertDir == "" {
		k := &keeper{client: c, secret: o.Secret, configuration: o.Configuration, host: o.Host, now: time.Now, metrics: m, log: o.Log}
		if err := k.start(ctx); err != nil {
			return nil, err
		}
		so.TLSOpts = append(so.TLSOpts, func(t *tls.Config) { t.GetCertificate = k.certificate })
	}
	return webhook.NewServer(so), nil
}

// start waits for the first certificate and then keeps it.
func (k *keeper) start(ctx context.Context) error {
	for n := 1; ; n++ {
		err := k.keep(ctx)
		if err == nil {
			go k.run(ctx, keepEvery)
			return nil
		}
		if n == startTries || ctx.Err() != nil {
			return err
		}
		k.log.Warn().Err(err).Msg("there is no certificate yet")
		select {
		case <-ctx.Done():
		case <-time.After(startPause):
		}
	}
}

func adminSide(server webhook.Server, m *metrics) http.Handler {
	mux := http.NewServeMux()
	ok := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) }
	mux.HandleFunc("/healthz", ok)
	ready := server.StartedChecker()
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := ready(r); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		ok(w, r)
	})
	mux.Handle("/metrics", promhttp.HandlerFor(m.gatherer(), promhttp.HandlerOpts{}))
	return mux
}

// newClient knows only the kinds that are used, and keeps no cache: a cache would
// need the right to list and watch them all.
func newClient(cluster *rest.Config) (client.Client, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, admissionregistrationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	return client.New(cluster, client.Options{Scheme: scheme})
}

// unfit says why nothing can be injected in the cluster; empty where it can.
func unfit(cluster *rest.Config) (string, error) {
	d, err := discovery.NewDiscoveryClientForConfig(cluster)
	if err != nil {
		return "", err
	}
	v, err := d.ServerVersion()
	if err != nil {
		return "", fmt.Errorf("cannot ask the API server for its version: %w", err)
	}
	return unfitVersion(v.Major, v.Minor), nil
}

func unfitVersion(major, minor string) string {
	for i, r := range minor {
		if r < '0' || r > '9' { // as in 30+
			minor = minor[:i]
			break
		}
	}
	if n, err := strconv.Atoi(minor); major == "1" && err == nil && n < oldestMinor {
		return fmt.Sprintf("Kubernetes %s.%s has no native sidecars; want 1.%d or newer", major, minor, oldestMinor)
	}
	return ""
}
