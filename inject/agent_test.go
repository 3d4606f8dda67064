package inject

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestTheAgentIsAppended(t *testing.T) {
	f := func(edit func(c *corev1.Container), want, note string) {
		t.Helper()
		after, _ := decide(t, newInjector(t), testPod(t, func(p *corev1.Pod) {
			annotate(p, "agent", "true")
			edit(server(p))
		}))
		got := ""
		for _, e := range server(after).Env {
			if e.Name == preload && e.ValueFrom == nil {
				got = e.Value
			}
		}
		if got != want {
			t.Errorf("LD_PRELOAD is %q, want %q", got, want)
		}
		if status := after.Annotations[annotationStatus]; !strings.Contains(status, note) {
			t.Errorf("status %q lacks %q", status, note)
		}
		sidecar(t, after) // without the agent sharing goes on
	}
	library := "/semsharekv/agent/libsemshare-agent.so"
	f(func(c *corev1.Container) {}, library, "agent=on")
	f(func(c *corev1.Container) { c.Env = []corev1.EnvVar{{Name: preload, Value: "/lib/jemalloc.so"}} }, "/lib/jemalloc.so:"+library, "agent=on")
	f(func(c *corev1.Container) {
		c.Env = []corev1.EnvVar{{Name: preload, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}
	}, "", "agent=off (LD_PRELOAD comes from elsewhere")
	f(func(c *corev1.Container) { c.Image = "me/llama-server:1-alpine" }, "", "agent=off (the image's name says musl")
	f(func(c *corev1.Container) {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "models", MountPath: agentPath})
	}, "", "agent=off (there is a volume at "+agentPath)
	f(func(c *corev1.Container) { c.Image = "me/llama-server:distroless" }, library, "agent=on")
}
