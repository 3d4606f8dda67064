package inject

import (
	"path"
	"regexp"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

const (
	// agentLibrary is the agent's file, which Copy finds in the sidecar's image.
	agentLibrary = "libsemshare-agent.so"
	cudaLibrary  = "libsemshare_cuda.so"
	agentPath    = "/semsharekv/agent"
	preload      = "LD_PRELOAD"
)

var (
	// agentSize bounds the volume that holds the library.
	agentSize = resource.MustParse("64Mi")
	// muslImage are the images whose name says that they have musl, into which a
	// library that was linked with glibc must not be loaded.
	muslImage = regexp.MustCompile(`(^|[^a-z])(alpine|musl)([^a-z]|$)`)
)

// addAgent has the agent library copied to where the server sees it, and appends
// it to the server's LD_PRELOAD. Where it cannot, sharing goes on without it.
func (p *planner) addAgent() {
	switch why := p.noAgent(); {
	case !p.s.Agent:
		return
	case why != "":
		p.note("agent=off (%s)", why)
		return
	}
	size := agentSize.DeepCopy()
	p.volumes = append(p.volumes, corev1.Volume{Name: agentVolume, VolumeSource: corev1.VolumeSource{
		EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &size}}})
	mount := corev1.VolumeMount{Name: agentVolume, MountPath: agentPath}
	small := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi")}
	p.initContainers = append(p.initContainers, corev1.Container{
		Name:            agentName,
		Image:           p.s.Image,
		ImagePullPolicy: p.s.PullPolicy,
		Args:            []string{"inject", "copy", agentLibrary, agentPath},
		Resources:       corev1.ResourceRequirements{Requests: small, Limits: small.DeepCopy()},
		VolumeMounts:    []corev1.VolumeMount{mount},
		SecurityContext: p.user.DeepCopy(),
	})
	mount.ReadOnly = true
	p.mounts = append(p.mounts, mount)
	library := path.Join(agentPath, agentLibrary)
	p.env = append(p.env, corev1.EnvVar{Name: preload, Value: p.preloaded(library)})
	p.note("agent=on")
}

// preloaded is the server's LD_PRELOAD with the library behind what is there.
func (p *planner) preloaded(library string) string {
	value := ""
	for _, e := range p.c.Env {
		if e.Name == preload {
			value = e.Value
		}
	}
	if value == "" {
		return library
	}
	return value + ":" + library
}

func (p *planner) noAgent() string {
	if muslImage.MatchString(p.c.Image) {
		return "the image's name says musl, and the agent needs glibc"
	}
	if _, given, known := p.cmd.env.get(preload); given && !known {
		return "LD_PRELOAD comes from elsewhere, so nothing can be appended to it"
	}
	for _, m := range p.c.VolumeMounts {
		if overlap(agentPath, m.MountPath) {
			return "there is a volume at " + m.MountPath
		}
	}
	return ""
}
