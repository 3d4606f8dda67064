package inject

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// A server that only its own pod can reach is not opened to others.
func TestTheSidecarListensWhereTheServerWould(t *testing.T) {
	f := func(want string, edit func(p *corev1.Pod)) {
		t.Helper()
		after, _ := decide(t, newInjector(t), testPod(t, func(p *corev1.Pod) {
			server(p).Args = []string{"-m", "/m"}
			server(p).Ports, server(p).ReadinessProbe = nil, nil
			edit(p)
		}))
		if got := follows(sidecar(t, after).Args, "--listen"); got != want {
			t.Errorf("the sidecar listens on %q, want %q", got, want)
		}
	}
	image := func(name string, args ...string) func(p *corev1.Pod) {
		return func(p *corev1.Pod) { server(p).Image, server(p).Args = name, append(args, "-m", "/m") }
	}
	host := func(v string) func(p *corev1.Pod) {
		return func(p *corev1.Pod) { server(p).Args = []string{"--host", v} }
	}
	probed := func(h string, port int) func(p *corev1.Pod) {
		return func(p *corev1.Pod) {
			image("me/llama-server:1")(p)
			get := &corev1.HTTPGetAction{Host: h, Port: intstr.FromInt(port)}
			server(p).LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: get}}
		}
	}
	f(":8080", image("ghcr.io/ggml-org/llama.cpp:server-cuda"))
	f("127.0.0.1:8080", image("ghcr.io/ggml-org/llama.cpp:full", "--server"))
	f("127.0.0.1:8080", image("me/llama-server:1"))
	f(":8080", func(p *corev1.Pod) {
		image("me/llama-server:1")(p)
		server(p).Ports = []corev1.ContainerPort{{ContainerPort: 8080}}
	})
	f("127.0.0.1:8080", func(p *corev1.Pod) {
		image("me/llama-server:1")(p)
		server(p).Args = []string{"--port", "8080"}
		server(p).Ports = []corev1.ContainerPort{{ContainerPort: 9090}}
	})
	f(":8080", probed("", 8080))
	f("127.0.0.1:8080", probed("", 9090))
	f("127.0.0.1:8080", probed("10.0.0.1", 8080))
	f("127.0.0.1:8080", host("127.0.0.1,::1"))
	f("[::1]:8080", host("::1, localhost"))
	f(":8080", host("10.0.0.1,0.0.0.0"))
	f("10.0.0.1:8080", host("10.0.0.1"))
	f("[fd00::1]:8080", func(p *corev1.Pod) {
		host("$(HOST)")(p)
		annotate(p, "listen-host", "fd00::1")
	})
}
