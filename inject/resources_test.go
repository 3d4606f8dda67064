package inject

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestResources(t *testing.T) {
	pod := testPod(t, nil)
	after, _ := decide(t, newInjector(t), pod)
	if m := server(after).Resources.Limits.Memory().String(); m != "12Gi" {
		t.Errorf("the server's memory limit is %s, want 8Gi and the slots' 4Gi", m)
	}
	if r := sidecar(t, after).Resources; r.Limits.Memory().String() != "5Gi" || r.Requests.Memory().String() != "256Mi" {
		t.Errorf("the sidecar's resources are %v", r)
	}

	// A pod of the Guaranteed class stays one; its own resources grow too.
	pod = testPod(t, func(p *corev1.Pod) {
		r := corev1.ResourceList{corev1.ResourceCPU: sidecarCPULimit, corev1.ResourceMemory: testSettings().SlotSize}
		server(p).Resources = corev1.ResourceRequirements{Requests: r, Limits: r}
		p.Spec.Resources = &corev1.ResourceRequirements{Requests: r.DeepCopy(), Limits: r.DeepCopy()}
	})
	after, _ = decide(t, newInjector(t), pod)
	if !guaranteed(after) {
		t.Errorf("the pod is no longer Guaranteed: %v, %v", server(after).Resources, sidecar(t, after).Resources)
	}
	if m := after.Spec.Resources.Limits.Memory().String(); m != "13Gi" {
		t.Errorf("the pod's memory limit is %s, want 4Gi, the sidecar's 5Gi and the slots' 4Gi", m)
	}

	// So does one that is by its own resources alone.
	pod = testPod(t, func(p *corev1.Pod) {
		r := corev1.ResourceList{corev1.ResourceCPU: sidecarCPULimit, corev1.ResourceMemory: testSettings().SlotSize}
		server(p).Resources = corev1.ResourceRequirements{}
		p.Spec.Resources = &corev1.ResourceRequirements{Requests: r, Limits: r.DeepCopy()}
	})
	after, _ = decide(t, newInjector(t), pod)
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		request, limit := after.Spec.Resources.Requests[name], after.Spec.Resources.Limits[name]
		if request.Cmp(limit) != 0 {
			t.Errorf("the pod's own request of %s is %s and its limit %s: it is no longer Guaranteed", name, request.String(), limit.String())
		}
	}
}
