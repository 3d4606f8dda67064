package inject

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
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
