package inject

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// sidecarResources are those of the settings over the usual ones. In a pod of
// the Guaranteed class the sidecar asks for its limits, so that the pod stays in
// that class.
func (p *planner) sidecarResources() (corev1.ResourceRequirements, error) {
	memory := sidecarMemoryLimit.DeepCopy()
	memory.Add(p.slotMemory)
	requests := corev1.ResourceList{corev1.ResourceCPU: sidecarCPU.DeepCopy(), corev1.ResourceMemory: sidecarMemory.DeepCopy()}
	limits := corev1.ResourceList{corev1.ResourceCPU: sidecarCPULimit.DeepCopy(), corev1.ResourceMemory: memory}
	for name := range limits {
		limit, limited := p.s.Limits[name]
		request, requested := p.s.Requests[name]
		if limited {
			limits[name] = limit
		}
		if requested {
			requests[name] = request
		}
		if r, l := requests[name], limits[name]; r.Cmp(l) > 0 {
			switch {
			case limited && requested:
				return corev1.ResourceRequirements{}, refuse(kindAnnotation, "the sidecar's %s request of %s exceeds its limit of %s", name, r.String(), l.String())
			case limited:
				requests[name] = l
			default:
				limits[name] = r
			}
		}
	}
	if guaranteed(p.pod) {
		requests = limits
	}
	return corev1.ResourceRequirements{Requests: requests, Limits: limits}, nil
}

// guaranteed reports whether the pod is of the Guaranteed quality of service: by its own
// resources where it has any, else by those of all containers.
func guaranteed(pod *corev1.Pod) bool {
	if r := pod.Spec.Resources; r != nil && len(r.Requests)+len(r.Limits) > 0 {
		return exact(*r)
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if !exact(list[i].Resources) {
				return false
			}
		}
	}
	return true
}

// exact reports whether CPU and memory are limited to what is requested.
func exact(r corev1.ResourceRequirements) bool {
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		limit, limited := r.Limits[name]
		request, requested := r.Requests[name]
		if !limited || requested && request.Cmp(limit) != 0 {
			return false
		}
	}
	return true
}

// raiseServerMemory makes room for the slots that the server saves: pages of a
// memory volume count as those of the container that wrote them, and a server
// that was given just enough for itself would be killed.
func (p *planner) raiseServerMemory() {
	p.resources = *p.c.Resources.DeepCopy()
	raise(p.resources.Requests, corev1.ResourceMemory, p.s.SlotSize)
	raise(p.resources.Limits, corev1.ResourceMemory, p.s.SlotSize)
}

// raisePod adds what the containers got to the pod's own resources, where it has
// any: they bound the sum.
func (p *planner) raisePod(sidecar corev1.ResourceRequirements) {
	if p.pod.Spec.Resources == nil {
		return
	}
	p.podResources = p.pod.Spec.Resources.DeepCopy()
	for name, q := range sidecar.Requests {
		raise(p.podResources.Requests, name, q)
	}
	for name, q := range sidecar.Limits {
		raise(p.podResources.Limits, name, q)
	}
	if p.ownSlots && p.s.ServerMemory == "raise" {
		raise(p.podResources.Requests, corev1.ResourceMemory, p.s.SlotSize)
		raise(p.podResources.Limits, corev1.ResourceMemory, p.s.SlotSize)
	}
}

// raise adds to a quantity that is there.
func raise(list corev1.ResourceList, name corev1.ResourceName, by resource.Quantity) {
	if q, ok := list[name]; ok {
		q.Add(by)
		list[name] = q
	}
}
