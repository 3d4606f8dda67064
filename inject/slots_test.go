package inject

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestTheServersOwnSlotDirectoryIsShared(t *testing.T) {
	f := func(edit func(p *corev1.Pod), budget string) {
		t.Helper()
		size := testSettings().SlotSize
		pod := testPod(t, func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "mine", VolumeSource: corev1.VolumeSource{
				EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &size}}})
			server(p).VolumeMounts = append(server(p).VolumeMounts, corev1.VolumeMount{Name: "mine", MountPath: "/data"})
			edit(p)
		})
		after, _ := decide(t, newInjector(t), pod)
		c := sidecar(t, after)
		if got := follows(c.Args, "--slot-dir"); got != "/data/slots" {
			t.Errorf("slot directory %s, want the server's", got)
		}
		if got := follows(c.Args, "--budget"); got != budget {
			t.Errorf("budget %q, want %q", got, budget)
		}
		if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "mine" && m.MountPath == "/data" && !m.ReadOnly }) {
			t.Errorf("mounts %v lack the server's", c.VolumeMounts)
		}
		if len(after.Spec.Volumes) != len(pod.Spec.Volumes) {
			t.Errorf("volumes %v, want none added", after.Spec.Volumes)
		}
	}
	f(func(p *corev1.Pod) { server(p).Args = append(server(p).Args, "--slot-save-path", "/data/slots/") }, "2GiB")
	f(func(p *corev1.Pod) {
		server(p).Env = append(server(p).Env, corev1.EnvVar{Name: "LLAMA_ARG_SLOT_SAVE_PATH", Value: "/data/slots"})
		p.Spec.Volumes[1].EmptyDir.SizeLimit = nil
	}, "")
	onClaim := func(p *corev1.Pod) {
		server(p).Args = append(server(p).Args, "--slot-save-path", "/data/slots")
		p.Spec.Volumes[1].VolumeSource = corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "mine"}}
	}
	f(onClaim, "")
	f(func(p *corev1.Pod) { onClaim(p); annotate(p, "budget", "50Gi") }, "50GiB")
}

// What the sidecar writes to a volume in memory counts as its own.
func TestTheServersOwnSlotsInMemoryAreTheSidecarsToo(t *testing.T) {
	f := func(medium corev1.StorageMedium, limit, podLimit string) {
		t.Helper()
		size := resource.MustParse("6Gi")
		after, _ := decide(t, newInjector(t), testPod(t, func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "mine", VolumeSource: corev1.VolumeSource{
				EmptyDir: &corev1.EmptyDirVolumeSource{Medium: medium, SizeLimit: &size}}})
			server(p).VolumeMounts = append(server(p).VolumeMounts, corev1.VolumeMount{Name: "mine", MountPath: "/data"})
			server(p).Args = append(server(p).Args, "--slot-save-path", "/data")
			p.Spec.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("8Gi")}}
		}))
		if got := sidecar(t, after).Resources.Limits.Memory().String(); got != limit {
			t.Errorf("medium %q: the sidecar's memory limit is %s, want %s", medium, got, limit)
		}
		if got := after.Spec.Resources.Limits.Memory().String(); got != podLimit {
			t.Errorf("medium %q: the pod's memory limit is %s, want %s", medium, got, podLimit)
		}
	}
	f(corev1.StorageMediumMemory, "7Gi", "15Gi")
	f(corev1.StorageMediumDefault, "1Gi", "9Gi")
}
