package inject

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/semsharekv/semsharekv/internal/llamaserver"
)

func TestPortsThatAreInUseAreLeftOut(t *testing.T) {
	pod := testPod(t, func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "other", Ports: []corev1.ContainerPort{
			{ContainerPort: 18080}, {ContainerPort: 8090}, {ContainerPort: 18081}}})
	})
	after, _ := decide(t, newInjector(t), pod)
	if got := follows(server(after).Args, "--port"); got != "18082" {
		t.Errorf("the server is moved to %s, want 18082", got)
	}
	if got := follows(sidecar(t, after).Args, "--admin"); got != ":8091" {
		t.Errorf("the admin side is at %s, want :8091", got)
	}
}

// On Vertex AI the server listens on AIP_HTTP_PORT, whatever --port says.
func TestAServerOnVertexAIIsMovedByItsVariable(t *testing.T) {
	f := func(listen string, edit func(p *corev1.Pod), env ...corev1.EnvVar) {
		t.Helper()
		after, _ := decide(t, newInjector(t), testPod(t, func(p *corev1.Pod) {
			server(p).Env = env
			edit(p)
		}))
		if got := follows(sidecar(t, after).Args, "--listen"); got != listen {
			t.Errorf("%v: the sidecar listens on %q, want %q", env, got, listen)
		}
		if got, _, _ := newEnvironment(server(after).Env).get(llamaserver.VertexPort); got != "18080" {
			t.Errorf("%v: the server is moved to %q, want 18080", env, got)
		}
	}
	asIs := func(*corev1.Pod) {}
	mode := corev1.EnvVar{Name: "AIP_MODE", Value: "PREDICTION"}
	f("0.0.0.0:8080", func(p *corev1.Pod) { server(p).Args = []string{"--port", "9000", "--host", "0.0.0.0"} }, mode)
	f("0.0.0.0:8080", asIs, mode, corev1.EnvVar{Name: "AIP_HTTP_PORT"})
	f("0.0.0.0:7080", asIs, mode, corev1.EnvVar{Name: "AIP_HTTP_PORT", Value: "7080"})
	f("0.0.0.0:7080", func(p *corev1.Pod) { annotate(p, "listen-port", "7080") }, hidden("AIP_MODE"), hidden("AIP_HTTP_PORT"))
}

// hidden is a variable that the pod does not tell.
func hidden(name string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}
}

func TestElsewhereVertexAIsPortIsLeftAlone(t *testing.T) {
	env := []corev1.EnvVar{{Name: "AIP_MODE", Value: "TRAINING"}, {Name: "AIP_HTTP_PORT", Value: "7080"}}
	after, _ := decide(t, newInjector(t), testPod(t, func(p *corev1.Pod) { server(p).Env = env }))
	if got := follows(sidecar(t, after).Args, "--listen"); got != "0.0.0.0:8080" {
		t.Errorf("the sidecar listens on %q, want 0.0.0.0:8080", got)
	}
	if got, _, _ := newEnvironment(server(after).Env).get(llamaserver.VertexPort); got != "7080" {
		t.Errorf("AIP_HTTP_PORT became %s", got)
	}
}

// A low port needs a capability, a sysctl, or a server that needed one already.
func TestLowPortsThatTheSidecarMayHave(t *testing.T) {
	f := func(edit func(p *corev1.Pod)) {
		t.Helper()
		after, _ := decide(t, newInjector(t), testPod(t, func(p *corev1.Pod) {
			server(p).Args = []string{"-m", "/m", "--port", "80"}
			edit(p)
		}))
		if got := follows(sidecar(t, after).Args, "--listen"); got != ":80" {
			t.Errorf("the sidecar listens on %q, want :80", got)
		}
	}
	user := int64(1000)
	f(func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &user} })
	f(func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: portSysctl, Value: "80"}}}
	})
	f(func(p *corev1.Pod) {
		server(p).SecurityContext = &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
	})
}
