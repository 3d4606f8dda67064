package inject

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestTheSidecarsUserCanShareFiles(t *testing.T) {
	f := func(edit func(p *corev1.Pod), user int64) {
		t.Helper()
		after, _ := decide(t, newInjector(t), testPod(t, edit))
		sc := sidecar(t, after).SecurityContext
		if *sc.RunAsUser != user || *sc.RunAsNonRoot != (user != 0) {
			t.Errorf("user %d, runAsNonRoot %v; want %d", *sc.RunAsUser, *sc.RunAsNonRoot, user)
		}
		if *sc.AllowPrivilegeEscalation || !*sc.ReadOnlyRootFilesystem || sc.Capabilities.Drop[0] != "ALL" || sc.SeccompProfile == nil {
			t.Errorf("security context %v is not restricted", sc)
		}
	}
	number := func(n int64) *int64 { return &n }
	drop := &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}
	f(func(p *corev1.Pod) {}, sidecarUser)
	f(func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: number(1000)} }, 1000)
	f(func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: number(1000)}
		server(p).SecurityContext = &corev1.SecurityContext{RunAsUser: number(2000)}
	}, 2000)
	f(func(p *corev1.Pod) { server(p).SecurityContext = &corev1.SecurityContext{RunAsUser: number(0)} }, sidecarUser)
	f(func(p *corev1.Pod) { server(p).SecurityContext = &corev1.SecurityContext{Capabilities: drop} }, 0)
	f(func(p *corev1.Pod) { server(p).Args = append(server(p).Args, "--slot-save-path", "/models/slots") }, 0)
}
