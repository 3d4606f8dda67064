package inject

import (
	"path"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/semsharekv/semsharekv/internal/llamaserver"
)

// arrangeSlots mounts the slot directory in both containers: the server's own
// where it has one, else one in memory.
func (p *planner) arrangeSlots() error {
	dir, given, known := p.cmd.value(llamaserver.SlotPath)
	if given {
		return p.shareSlots(dir, known)
	}
	p.slotDir, p.ownSlots = p.s.SlotPath, true
	for _, m := range p.c.VolumeMounts {
		if overlap(p.slotDir, m.MountPath) {
			return refuse(kindVolume, "container %q has a volume at %s; want annotation %sslot-path to name a path that is free", p.c.Name, m.MountPath, Prefix)
		}
	}
	p.cmd.set(llamaserver.SlotPath, p.slotDir)
	size := p.s.SlotSize.DeepCopy()
	p.volumes = append(p.volumes, corev1.Volume{Name: slotsVolume, VolumeSource: corev1.VolumeSource{
		EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &size}}})
	mount := corev1.VolumeMount{Name: slotsVolume, MountPath: p.slotDir}
	p.mounts = append(p.mounts, mount)
	p.sidecarMounts = append(p.sidecarMounts, mount)
	p.slotMemory = size
	if p.s.ServerMemory == "raise" {
		p.raiseServerMemory()
	} else {
		p.resources = p.c.Resources
	}
	p.keepIdleSlots()
	p.note("slots=%s (%s)", p.slotDir, size.String())
	return p.fitBudget(size)
}

// fitBudget takes half of the slot directory's size for the budget, where none is given.
func (p *planner) fitBudget(size resource.Quantity) error {
	if p.s.Budget.Cmp(size) > 0 {
		return refuse(kindAnnotation, "the budget of %s exceeds the slot directory's %s", p.s.Budget.String(), size.String())
	}
	if p.budget <= 0 {
		p.budget = size.Value() / 2
	}
	return nil
}

// shareSlots lets the sidecar see the directory that the server already has.
func (p *planner) shareSlots(dir string, known bool) error {
	if !known || !path.IsAbs(dir) {
		return refuse(kindVolume, "the server's --slot-save-path %q cannot be told; want an absolute path", dir)
	}
	p.slotDir, p.resources = path.Clean(dir), p.c.Resources
	m := p.mountOf(p.slotDir)
	switch {
	case m == nil:
		return refuse(kindVolume, "the server's --slot-save-path %s is on no volume that the sidecar could see", dir)
	case m.ReadOnly:
		return refuse(kindVolume, "the server's --slot-save-path %s is on a volume mounted read-only", dir)
	case m.SubPathExpr != "":
		return refuse(kindVolume, "the server's --slot-save-path %s is on a volume mounted with subPathExpr %q, which holds for its container only", dir, m.SubPathExpr)
	}
	if overlap(m.MountPath, programPath) {
		return refuse(kindVolume, "the server's --slot-save-path %s is on a volume at %s, where the sidecar has its program", dir, m.MountPath)
	}
	mount := *m
	p.sidecarMounts = append(p.sidecarMounts, mount)
	p.keepIdleSlots()
	p.note("slots=%s (the server's own)", p.slotDir)
	return p.measureVolume(m.Name)
}

// measureVolume takes the budget, and what the sidecar may write to memory, from the
// size of the server's own volume.
func (p *planner) measureVolume(name string) error {
	for _, v := range p.pod.Spec.Volumes {
		if v.Name != name || v.EmptyDir == nil {
			continue
		}
		memory, size := v.EmptyDir.Medium == corev1.StorageMediumMemory, v.EmptyDir.SizeLimit
		if memory && size == nil {
			return refuse(kindVolume, "the server's --slot-save-path %s is on volume %q in memory, which counts as the sidecar's; want a sizeLimit", p.slotDir, name)
		}
		if memory {
			p.slotMemory = *size
		}
		if size != nil {
			return p.fitBudget(*size)
		}
	}
	return nil
}

// keepIdleSlots asks the server not to put away slots that were just filled. It
// does so by a variable: servers that do not know the option would end at a flag.
func (p *planner) keepIdleSlots() {
	variable := llamaserver.IdleSlots.Env
	if _, given, _ := p.cmd.env.get(variable); !given {
		p.env = append(p.env, corev1.EnvVar{Name: variable, Value: "0"})
	}
}
