package inject

import (
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/semsharekv/semsharekv/internal/llamaserver"
)

// showModel lets the sidecar read the model file, for its token embeddings.
// Without it matching knows identical tokens only.
func (p *planner) showModel() {
	file, _, known := p.cmd.value(llamaserver.Model)
	m := p.mountOf(file)
	if !known || !path.IsAbs(file) || m == nil || m.SubPathExpr != "" || overlap(m.MountPath, programPath) {
		p.note("model=not visible to the sidecar")
		return
	}
	for _, have := range p.sidecarMounts {
		if have.MountPath == m.MountPath {
			return
		}
	}
	p.sidecarMounts = append(p.sidecarMounts, corev1.VolumeMount{Name: m.Name, MountPath: m.MountPath, SubPath: m.SubPath, ReadOnly: true})
}

// addConfig mounts the ConfigMap with the sidecar's configuration, if one is named.
func (p *planner) addConfig() error {
	if p.s.Config == "" {
		return nil
	}
	for _, m := range p.sidecarMounts {
		if overlap(m.MountPath, configPath) {
			return refuse(kindVolume, "container %q has a volume at %s, where the sidecar has its configuration", p.c.Name, m.MountPath)
		}
	}
	p.volumes = append(p.volumes, corev1.Volume{Name: configVolume, VolumeSource: corev1.VolumeSource{
		ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: p.s.Config}}}})
	p.sidecarMounts = append(p.sidecarMounts, corev1.VolumeMount{Name: configVolume, MountPath: configPath, ReadOnly: true})
	return nil
}

// mountOf is the server's volume mount that a path lies on, or nil.
func (p *planner) mountOf(file string) *corev1.VolumeMount {
	var best *corev1.VolumeMount
	for i := range p.c.VolumeMounts {
		m := &p.c.VolumeMounts[i]
		if inside(file, m.MountPath) && (best == nil || len(m.MountPath) > len(best.MountPath)) {
			best = m
		}
	}
	return best
}

// inside reports whether a path is dir or lies in it.
func inside(file, dir string) bool {
	file, dir = path.Clean(file), path.Clean(dir)
	return file == dir || dir == "/" || strings.HasPrefix(file, dir+"/")
}

// overlap reports whether one of two paths lies in the other, so that what is mounted there
// would hide it, or be the same.
func overlap(a, b string) bool { return inside(a, b) || inside(b, a) }
