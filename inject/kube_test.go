package inject

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"gomodules.xyz/jsonpatch/v2"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
	"sigs.k8s.io/yaml"

	"github.com/semsharekv/semsharekv/internal/lab"
)

// cluster is a real API server with the webhook installed and running, under the
// rights that the manual names and no others.
type cluster struct {
	t      *testing.T
	kube   *lab.Kube
	client client.Client
	port   int
	admin  string
	mu     sync.Mutex
	warned []string

	stop func()
}

func ctxOf(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	k := lab.StartKube(t)
	c := &cluster{t: t, kube: k}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, admissionregistrationv1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, rbacv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	cfg := c.config(k.Token)
	cfg.WarningHandler = c
	var err error
	if c.client, err = client.New(cfg, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) config(token string) *rest.Config {
	return &rest.Config{Host: c.kube.URL, BearerToken: token, QPS: -1, TLSClientConfig: rest.TLSClientConfig{CAFile: c.kube.CAFile}}
}

// HandleWarningHeader keeps what the API server warns of.
func (c *cluster) HandleWarningHeader(_ int, _, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warned = append(c.warned, text)
}

func (c *cluster) create(t testing.TB, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		if err := c.client.Create(ctxOf(t), o); err != nil {
			t.Fatalf("cannot create %T %s: %v", o, o.GetName(), err)
		}
	}
}

func (c *cluster) namespace(t testing.TB, name string, labels map[string]string) {
	t.Helper()
	c.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
}

// pod creates a pod as a controller would, and returns it as it is stored.
func (c *cluster) pod(t testing.TB, namespace string, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	pod.Namespace, pod.GenerateName, pod.Name = namespace, "llama-", ""
	c.create(t, pod)
	stored := &corev1.Pod{}
	if err := c.client.Get(ctxOf(t), client.ObjectKeyFromObject(pod), stored); err != nil {
		t.Fatal(err)
	}
	return stored
}

// configuration is the shipped one with the webhook on this machine.
func configuration(t testing.TB, name, url string) *admissionregistrationv1.MutatingWebhookConfiguration {
	t.Helper()
	text, err := os.ReadFile("testdata/webhook.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var w admissionregistrationv1.MutatingWebhookConfiguration
	if err := yaml.UnmarshalStrict(text, &w); err != nil {
		t.Fatal(err)
	}
	w.Name = name
	for i := range w.Webhooks {
		w.Webhooks[i].ClientConfig = admissionregistrationv1.WebhookClientConfig{URL: &url}
	}
	return &w
}

// install creates what the chart does: namespace, empty Secret, configuration,
// and the rights that the webhook has.
func (c *cluster) install(t *testing.T) {
	t.Helper()
	var err error
	if c.port, err = lab.FreePort(); err != nil {
		t.Fatal(err)
	}
	port, err := lab.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	c.admin = fmt.Sprintf("127.0.0.1:%d", port)
	c.namespace(t, "semsharekv", nil)
	meta := metav1.ObjectMeta{Namespace: "semsharekv", Name: "semsharekv-inject"}
	subject := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "lab-user"}}
	c.create(t,
		&corev1.Secret{ObjectMeta: meta},
		configuration(t, meta.Name, fmt.Sprintf("https://localhost:%d%s", c.port, Path)),
		&rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{meta.Name}, Verbs: []string{"get", "update"}}}},
		&rbacv1.RoleBinding{ObjectMeta: meta, Subjects: subject, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name}},
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: meta.Name}, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{admissionregistrationv1.GroupName}, Resources: []string{"mutatingwebhookconfigurations"},
				ResourceNames: []string{meta.Name}, Verbs: []string{"get", "update"}},
			{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: meta.Name}, Subjects: subject,
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: meta.Name}},
	)
}

// options are those of the webhook that install prepared.
func (c *cluster) options(t testing.TB) Options {
	return Options{
		Settings:      testSettings(),
		Listen:        fmt.Sprintf("127.0.0.1:%d", c.port),
		Admin:         c.admin,
		Secret:        types.NamespacedName{Namespace: "semsharekv", Name: "semsharekv-inject"},
		Host:          "localhost",
		Configuration: "semsharekv-inject",
		MissedEvery:   100 * time.Millisecond,
		Cluster:       c.config(c.kube.UserToken),
		Log:           zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel),
	}
}

// start runs the webhook and waits until pods are injected: the API server takes
// a moment to see a new configuration.
func (c *cluster) start(t *testing.T) {
	t.Helper()
	c.startWith(t, c.options(t), "semsharekv")
}

// startWith waits for injected pods in the namespace.
func (c *cluster) startWith(t *testing.T, o Options, namespace string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, o) }()
	var once sync.Once
	c.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("the webhook ended with %v", err)
			}
		})
	}
	t.Cleanup(c.stop)
	c.namespace(t, fmt.Sprintf("warm-%d", time.Now().UnixNano()), nil)
	until(t, "the webhook is ready", func() bool {
		select {
		case err := <-done:
			done <- err
			t.Fatalf("the webhook ended: %v", err)
		default:
		}
		resp, err := http.Get("http://" + c.admin + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	until(t, "pods are injected", func() bool {
		pod := testPod(t, nil)
		pod.Namespace, pod.Name, pod.GenerateName = namespace, "", "warm-"
		if err := c.client.Create(ctxOf(t), pod); err != nil {
			t.Fatal(err)
		}
		defer c.client.Delete(ctxOf(t), pod, client.GracePeriodSeconds(0))
		return injected(pod)
	})
}

func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !f(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it did not come true that %s", what)
		}
	}
}

// metric is a line of the webhook's metrics.
func (c *cluster) metric(t testing.TB, name string) string {
	t.Helper()
	resp, err := http.Get("http://" + c.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

func status(pod *corev1.Pod) string { return pod.Annotations[annotationStatus] }

func wantInjected(t testing.TB, pod *corev1.Pod) {
	t.Helper()
	if !strings.HasPrefix(status(pod), "injected; ") {
		t.Fatalf("status %q, want it injected", status(pod))
	}
	c := sidecar(t, pod)
	if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways || c.StartupProbe == nil {
		t.Errorf("the sidecar is not native: %s", text(t, c))
	}
	if got := follows(server(pod).Args, "--slot-save-path"); got != follows(c.Args, "--slot-dir") {
		t.Errorf("the server saves to %q, the sidecar reads %q", got, follows(c.Args, "--slot-dir"))
	}
}

func wantUntouched(t testing.TB, pod *corev1.Pod) {
	t.Helper()
	if len(pod.Spec.InitContainers) != 0 || slices.Contains(server(pod).Args, "--slot-save-path") {
		t.Errorf("the pod was changed: %s", text(t, pod.Spec))
	}
}

// plain is a pod that does not ask.
func plain(t testing.TB) *corev1.Pod {
	return testPod(t, func(p *corev1.Pod) { p.Annotations = nil })
}

func TestOnARealAPIServer(t *testing.T) {
	c := startCluster(t)
	c.install(t)
	c.start(t)
	for _, test := range []struct {
		name string
		f    func(*cluster, *testing.T)
	}{
		{"a pod opts in", (*cluster).testOptIn},
		{"a namespace opts in, a pod out", (*cluster).testNamespace},
		{"other webhooks have it invoked again", (*cluster).testReinvocation},
		{"restricted namespace", (*cluster).testRestricted},
		{"a Deployment is updated", (*cluster).testDeployment},
		{"a Job's pod", (*cluster).testJob},
		{"two containers", (*cluster).testTwoContainers},
		{"refusals", (*cluster).testRefusals},
		{"certificates are rotated", (*cluster).testRotation},
		{"an injected pod serves", (*cluster).testServes},
		{"the webhook is down", (*cluster).testDown},
	} {
		t.Run(test.name, func(t *testing.T) { test.f(c, t) })
	}
}

func (c *cluster) testOptIn(t *testing.T) {
	c.namespace(t, "opt", nil)
	pod := c.pod(t, "opt", testPod(t, nil))
	wantInjected(t, pod)
	// What is declared stays where Services, probes and others look for it.
	if p := server(pod).Ports; len(p) != 1 || p[0].Name != "http" || p[0].ContainerPort != 8080 {
		t.Errorf("ports %v", p)
	}
	if p := server(pod).ReadinessProbe.HTTPGet.Port.String(); p != "http" {
		t.Errorf("the probe asks %s", p)
	}
	pod = c.pod(t, "opt", plain(t))
	wantUntouched(t, pod)
	if s := status(pod); s != "" {
		t.Errorf("a pod that did not ask has the status %q", s)
	}
	wantUntouched(t, c.pod(t, "opt", testPod(t, func(p *corev1.Pod) { annotate(p, "inject", "false") })))
	if n := c.metric(t, `semsharekv_inject_pods_total{kind="",result="injected"}`); n == "" || n == "0" {
		t.Errorf("%q pods are counted as injected", n)
	}
}

func (c *cluster) testNamespace(t *testing.T) {
	c.namespace(t, "all", map[string]string{Prefix + "inject": "enabled"})
	wantInjected(t, c.pod(t, "all", plain(t)))
	wantInjected(t, c.pod(t, "all", testPod(t, nil)))
	out := c.pod(t, "all", testPod(t, func(p *corev1.Pod) { annotate(p, "inject", "false") }))
	wantUntouched(t, out)
	if s := status(out); s != "" {
		t.Errorf("a pod that opted out has the status %q", s)
	}
	other := c.pod(t, "all", testPod(t, func(p *corev1.Pod) {
		p.Annotations = nil
		server(p).Image = "nginx:1"
	}))
	if s := status(other); !strings.HasPrefix(s, "not injected; reason=no container runs llama-server") {
		t.Errorf("status %q", s)
	}
}

// testReinvocation has another webhook, whose name sorts behind, change the pod.
func (c *cluster) testReinvocation(t *testing.T) {
	c.namespace(t, "again", map[string]string{"again": "yes"})
	handler := admission.HandlerFunc(func(_ context.Context, r admission.Request) admission.Response {
		if bytes.Contains(r.Object.Raw, []byte(`"late"`)) {
			return admission.Allowed("")
		}
		return admission.Patched("", jsonpatch.NewOperation("add", "/spec/volumes/-",
			map[string]any{"name": "late", "emptyDir": map[string]any{}}))
	})
	other := httptest.NewTLSServer(&admission.Webhook{Handler: handler})
	t.Cleanup(other.Close)
	w := configuration(t, "zz-late", other.URL)
	w.Webhooks = w.Webhooks[:1]
	w.Webhooks[0].Name = "late.example.org"
	w.Webhooks[0].NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"again": "yes"}}
	w.Webhooks[0].ClientConfig.CABundle = encode("CERTIFICATE", other.Certificate().Raw)
	c.create(t, w)
	t.Cleanup(func() { c.client.Delete(ctxOf(t), w) })

	unchanged := func() string { return c.metric(t, `semsharekv_inject_pods_total{kind="",result="unchanged"}`) }
	before := unchanged()
	var pod *corev1.Pod
	until(t, "the other webhook is asked", func() bool {
		pod = c.pod(t, "again", testPod(t, nil))
		return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == "late" })
	})
	wantInjected(t, pod)
	if after := unchanged(); after == before {
		t.Errorf("the webhook was not invoked again: %s", after)
	}
	if n := len(pod.Spec.InitContainers); n != 1 {
		t.Errorf("%d init containers, want the sidecar once", n)
	}
	if n := strings.Count(strings.Join(server(pod).Args, " "), "--slot-save-path"); n != 1 {
		t.Errorf("args %v", server(pod).Args)
	}
}

func (c *cluster) testRestricted(t *testing.T) {
	c.namespace(t, "restricted", map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	yes, no, uid := true, false, int64(1000)
	conform := func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: &yes, RunAsUser: &uid,
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
		server(p).SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: &no,
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
	}
	pod := c.pod(t, "restricted", testPod(t, func(p *corev1.Pod) {
		conform(p)
		annotate(p, "agent", "true")
		annotate(p, "config", "routes")
	}))
	wantInjected(t, pod)
	if n := len(pod.Spec.InitContainers); n != 2 {
		t.Errorf("%d init containers, want the agent's and the sidecar", n)
	}
	// The namespace does enforce: the same without a security context is refused.
	bad := testPod(t, nil)
	bad.Namespace = "restricted"
	if err := c.client.Create(ctxOf(t), bad); !apierrors.IsForbidden(err) {
		t.Errorf("a pod that does not conform: %v, want it forbidden", err)
	}
}

// testDeployment makes the pods that the Deployment's controllers would: there is
// none here.
func (c *cluster) testDeployment(t *testing.T) {
	c.namespace(t, "deploy", nil)
	template := testPod(t, nil)
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "deploy", Name: "llama"}, Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: template.Labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: template.Labels, Annotations: template.Annotations}, Spec: template.Spec},
	}}
	c.create(t, d)
	ofTemplate := func() *corev1.Pod {
		t.Helper()
		if err := c.client.Get(ctxOf(t), client.ObjectKeyFromObject(d), d); err != nil {
			t.Fatal(err)
		}
		if len(d.Spec.Template.Spec.InitContainers) != 0 || d.Spec.Template.Annotations[annotationStatus] != "" {
			t.Errorf("the template was changed: %s", text(t, d.Spec.Template))
		}
		return c.pod(t, "deploy", &corev1.Pod{ObjectMeta: *d.Spec.Template.ObjectMeta.DeepCopy(), Spec: *d.Spec.Template.Spec.DeepCopy()})
	}
	wantInjected(t, ofTemplate())
	d.Spec.Template.Spec.Containers[0].Args = []string{"-m", "/models/new.gguf", "--port", "8080"}
	d.Spec.Template.Annotations[Prefix+"slot-size"] = "6Gi"
	if err := c.client.Update(ctxOf(t), d); err != nil {
		t.Fatal(err)
	}
	pod := ofTemplate()
	wantInjected(t, pod)
	if got := sidecar(t, pod).Resources.Limits.Memory().String(); got != "7Gi" {
		t.Errorf("the new pod's sidecar may use %s, want 7Gi", got)
	}
	// A pod that was made from what is stored, status and all, is not done twice.
	again := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: pod.Annotations}, Spec: pod.Spec}
	if again = c.pod(t, "deploy", again); len(again.Spec.InitContainers) != 1 {
		t.Errorf("%d init containers, want 1", len(again.Spec.InitContainers))
	}
	// One whose status was copied without the sidecar is done.
	stale := testPod(t, func(p *corev1.Pod) { p.Annotations[annotationStatus] = status(pod) })
	wantInjected(t, c.pod(t, "deploy", stale))
	// Pods that exist may be updated.
	pod.Labels["new"] = "yes"
	if err := c.client.Update(ctxOf(t), pod); err != nil {
		t.Errorf("an injected pod cannot be updated: %v", err)
	}
}

func (c *cluster) testJob(t *testing.T) {
	c.namespace(t, "job", nil)
	template := testPod(t, func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever })
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "job", Name: "llama"}, Spec: batchv1.JobSpec{
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Annotations: template.Annotations}, Spec: template.Spec}}}
	c.create(t, job)
	pod := c.pod(t, "job", &corev1.Pod{ObjectMeta: job.Spec.Template.ObjectMeta, Spec: job.Spec.Template.Spec})
	wantInjected(t, pod)
	if pod.Spec.RestartPolicy != corev1.RestartPolicyNever || len(pod.Spec.Containers) != 1 {
		t.Errorf("restart policy %s, %d containers: the Job would not end with its server", pod.Spec.RestartPolicy, len(pod.Spec.Containers))
	}
}

func (c *cluster) testTwoContainers(t *testing.T) {
	c.namespace(t, "two", nil)
	two := func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, *server(p).DeepCopy())
		p.Spec.Containers[1].Name, p.Spec.Containers[1].Ports = "second", nil
		p.Spec.Containers[1].Args = []string{"-m", "/models/small.gguf", "--port", "8081"}
	}
	pod := c.pod(t, "two", testPod(t, two))
	wantUntouched(t, pod)
	if !strings.Contains(status(pod), "containers llama, second all run llama-server") {
		t.Errorf("status %q", status(pod))
	}
	pod = c.pod(t, "two", testPod(t, func(p *corev1.Pod) {
		two(p)
		annotate(p, "container", "second")
	}))
	first, second := pod.Spec.Containers[0], pod.Spec.Containers[1]
	if slices.Contains(first.Args, "--slot-save-path") || follows(second.Args, "--port") != "18080" {
		t.Errorf("args %v and %v, want the second server moved", first.Args, second.Args)
	}
	if got := follows(sidecar(t, pod).Args, "--listen"); got != ":8081" {
		t.Errorf("the sidecar listens on %s, want the second server's port", got)
	}
}

func (c *cluster) testRefusals(t *testing.T) {
	c.namespace(t, "refused", nil)
	for _, r := range refusals {
		pod := c.pod(t, "refused", testPod(t, r.edit))
		if s := status(pod); !strings.HasPrefix(s, "not injected; reason=") || !strings.Contains(s, r.says) {
			t.Errorf("status %q, want it to say %q", s, r.says)
		}
		c.mu.Lock()
		if !slices.ContainsFunc(c.warned, func(w string) bool { return strings.HasPrefix(w, "semsharekv: not injected") }) {
			t.Errorf("%s: warnings %q", r.says, c.warned)
		}
		c.warned = nil
		c.mu.Unlock()
	}
	for _, kind := range []string{kindAnnotation, kindContainer, kindCommand, kindServer, kindPort, kindVolume, kindName, kindUser, kindPod} {
		if n := c.metric(t, fmt.Sprintf(`semsharekv_inject_pods_total{kind=%q,result="refused"}`, kind)); n == "" {
			t.Errorf("refusals of kind %s are not counted", kind)
		}
	}
}

// testRotation moves the clock of two replicas.
func (c *cluster) testRotation(t *testing.T) {
	meta := metav1.ObjectMeta{Namespace: "semsharekv", Name: "rotated"}
	c.create(t, &corev1.Secret{ObjectMeta: meta}, configuration(t, meta.Name, "https://localhost:1"+Path))
	t.Cleanup(func() {
		c.client.Delete(ctxOf(t), &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: meta.Name}})
	})
	now := time.Now()
	replica := func() *keeper {
		return &keeper{client: c.client, secret: types.NamespacedName{Namespace: meta.Namespace, Name: meta.Name}, configuration: meta.Name,
			host: "semsharekv-inject.semsharekv.svc", now: func() time.Time { return now }, metrics: newMetrics(), log: zerolog.Nop()}
	}
	a, b := replica(), replica()
	keep := func() (*x509.Certificate, []*x509.Certificate) {
		t.Helper()
		// Both at once: one makes it, the other takes it.
		errs := make(chan error, 2)
		for _, k := range []*keeper{a, b} {
			go func() { errs <- k.keep(ctxOf(t)) }()
		}
		if err := errors.Join(<-errs, <-errs); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(a.keep(ctxOf(t)), b.keep(ctxOf(t))); err != nil {
			t.Fatal(err)
		}
		ca, _ := a.certificate(nil)
		cb, _ := b.certificate(nil)
		if !ca.Leaf.Equal(cb.Leaf) {
			t.Error("the replicas serve different certificates")
		}
		var w admissionregistrationv1.MutatingWebhookConfiguration
		if err := c.client.Get(ctxOf(t), client.ObjectKey{Name: meta.Name}, &w); err != nil {
			t.Fatal(err)
		}
		return ca.Leaf, parseAuthorities(w.Webhooks[1].ClientConfig.CABundle)
	}
	trusted := func(leaf *x509.Certificate, authorities []*x509.Certificate) {
		t.Helper()
		roots := x509.NewCertPool()
		for _, a := range authorities {
			roots.AddCert(a)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: a.host, Roots: roots, CurrentTime: now}); err != nil {
			t.Errorf("the API server would not trust the certificate: %v", err)
		}
	}
	first, authorities := keep()
	trusted(first, authorities)
	if again, _ := keep(); !again.Equal(first) {
		t.Error("a fresh certificate was replaced")
	}
	now = now.Add(certificateLife * 3 / 4)
	second, later := keep()
	if second.Equal(first) || len(later) != 1 || !later[0].Equal(authorities[0]) {
		t.Errorf("after two thirds of its life: same certificate %v, %d authorities", second.Equal(first), len(later))
	}
	trusted(first, later)
	trusted(second, later)
	now = now.Add(authorityLife * 3 / 4)
	third, both := keep()
	if len(both) != 2 {
		t.Fatalf("%d authorities are trusted, want the new one and the old", len(both))
	}
	trusted(third, both)
	if n := testutil.ToFloat64(a.metrics.rotations) + testutil.ToFloat64(b.metrics.rotations); n != 3 {
		t.Errorf("%v certificates were made, want 3", n)
	}
	// What is broken is made anew.
	if err := c.client.Update(ctxOf(t), &corev1.Secret{ObjectMeta: meta, Data: map[string][]byte{secretCertificate: []byte("x"), secretAuthority: []byte("y")}}); err != nil {
		t.Fatal(err)
	}
	fourth, authorities := keep()
	trusted(fourth, authorities)
}

// testDown stops the webhook: pods are created as they are, and counted once it
// is back.
func (c *cluster) testDown(t *testing.T) {
	c.namespace(t, "down", nil)
	c.stop()
	pod := c.pod(t, "down", testPod(t, nil))
	wantUntouched(t, pod)
	if s := status(pod); s != "" {
		t.Errorf("status %q of a pod that nobody saw", s)
	}
	for _, phase := range []corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed} {
		over := c.pod(t, "down", testPod(t, nil))
		over.Status.Phase = phase
		if err := c.client.Status().Update(ctxOf(t), over); err != nil {
			t.Fatal(err)
		}
	}
	c.start(t)
	until(t, "the missed pod is counted, and none that is over", func() bool { return c.metric(t, "semsharekv_inject_missed_pods") == "1" })
	wantInjected(t, c.pod(t, "down", testPod(t, nil)))
}

// With cert-manager the certificate is a pair of files that change.
func TestMountedCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	k := &keeper{host: "localhost", now: time.Now}
	write := func() *x509.Certificate {
		t.Helper()
		data, err := k.issue(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{secretKey, secretCertificate} {
			if err := os.WriteFile(dir+"/"+name, data[name], 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return parseAuthorities(data[secretCertificate])[0]
	}
	first := write()
	port, err := lab.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	o := Options{CertDir: dir, Listen: fmt.Sprintf("127.0.0.1:%d", port)}
	ctx, stop := context.WithCancel(context.Background())
	server, err := o.server(ctx, nil, newMetrics())
	if err != nil {
		t.Fatal(err)
	}
	server.Register(Path, &admission.Webhook{Handler: newInjector(t)})
	done := make(chan error, 1)
	go func() { done <- server.Start(ctx) }()
	t.Cleanup(func() {
		stop()
		<-done
	})
	serves := func(want *x509.Certificate) func() bool {
		return func() bool {
			conn, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Second}, "tcp", o.Listen, &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				return false
			}
			defer conn.Close()
			return conn.ConnectionState().PeerCertificates[0].Equal(want)
		}
	}
	until(t, "the first certificate is served", serves(first))
	until(t, "the second certificate is served", serves(write()))
}

// What cannot be a pod passes, and is counted.
func TestAFaultLetsThePodPass(t *testing.T) {
	in := newInjector(t)
	f := func(raw string) {
		t.Helper()
		r := admission.Request{}
		r.Operation, r.Resource.Resource = "CREATE", "pods"
		r.Object.Raw = json.RawMessage(raw)
		if a := in.Handle(context.Background(), r); !a.Allowed || len(a.Patches) != 0 || len(a.Warnings) != 1 {
			t.Errorf("%s: %+v", raw, a)
		}
	}
	f(`{`)
	f(`{"spec":{"containers":"x"}}`)
	if n := testutil.ToFloat64(in.metrics.pods.WithLabelValues("failed", "")); n != 2 {
		t.Errorf("%v failures are counted, want 2", n)
	}
}
