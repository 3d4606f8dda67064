package inject

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// sidecarUser is the user of the sidecar's image.
const sidecarUser = 65532

// The sidecar's resources where nobody says otherwise. What it writes to the slot
// directory counts as its memory, so the directory's size comes on top.
var (
	sidecarCPU         = resource.MustParse("250m")
	sidecarMemory      = resource.MustParse("256Mi")
	sidecarCPULimit    = resource.MustParse("2")
	sidecarMemoryLimit = resource.MustParse("1Gi")
)

// addSidecar adds the native sidecar: an init container that keeps running. It
// listens before the server starts, and ends after it, so that Jobs finish.
func (p *planner) addSidecar() error {
	args := p.serve()
	resources, err := p.sidecarResources()
	if err != nil {
		return err
	}
	always := corev1.ContainerRestartPolicyAlways
	healthy := func(period, failures int32) *corev1.Probe {
		return &corev1.Probe{
			ProbeHandler:     corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromString(adminPortName)}},
			PeriodSeconds:    period,
			TimeoutSeconds:   5,
			FailureThreshold: failures,
		}
	}
	p.initContainers = append(p.initContainers, corev1.Container{
		Name:            sidecarName,
		Image:           p.s.Image,
		ImagePullPolicy: p.s.PullPolicy,
		Args:            args,
		Env:             p.sidecarEnv,
		Ports:           []corev1.ContainerPort{{Name: adminPortName, ContainerPort: int32(p.admin), Protocol: corev1.ProtocolTCP}},
		RestartPolicy:   &always,
		StartupProbe:    healthy(1, 60),
		LivenessProbe:   healthy(10, 6),
		Resources:       resources,
		VolumeMounts:    p.sidecarMounts,
		SecurityContext: &p.user,
	})
	p.raisePod(resources)
	return nil
}

// restricted is a security context that the restricted Pod Security Standard
// admits, save for root, which only a server that is root makes necessary: one
// without the right to read others' files, or with a slot directory of its own.
func restricted(uid int64, gid *int64) corev1.SecurityContext {
	yes, no, nonRoot := true, false, uid != 0
	return corev1.SecurityContext{
		RunAsUser:                &uid,
		RunAsGroup:               gid,
		RunAsNonRoot:             &nonRoot,
		AllowPrivilegeEscalation: &no,
		ReadOnlyRootFilesystem:   &yes,
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// effective is the container's user and group as far as the pod says.
func effective(pod *corev1.Pod, c *corev1.Container) (uid, gid *int64) {
	if sc := pod.Spec.SecurityContext; sc != nil {
		uid, gid = sc.RunAsUser, sc.RunAsGroup
	}
	if sc := c.SecurityContext; sc != nil {
		if sc.RunAsUser != nil {
			uid = sc.RunAsUser
		}
		if sc.RunAsGroup != nil {
			gid = sc.RunAsGroup
		}
	}
	return uid, gid
}

func runsAsNonRoot(pod *corev1.Pod, c *corev1.Container) bool {
	if sc := c.SecurityContext; sc != nil && sc.RunAsNonRoot != nil {
		return *sc.RunAsNonRoot
	}
	sc := pod.Spec.SecurityContext
	return sc != nil && sc.RunAsNonRoot != nil && *sc.RunAsNonRoot
}

// hasCapability reports whether root in the container has a capability that
// runtimes give it where nobody says otherwise.
func hasCapability(c *corev1.Container, name corev1.Capability) bool {
	sc := c.SecurityContext
	if sc == nil || sc.Capabilities == nil {
		return true
	}
	has := func(list []corev1.Capability) bool {
		return slices.ContainsFunc(list, func(c corev1.Capability) bool { return c == "ALL" || c == name || c == "CAP_"+name })
	}
	return has(sc.Capabilities.Add) || !has(sc.Capabilities.Drop)
}

// portSysctl is the first port that needs no capability.
const portSysctl = "net.ipv4.ip_unprivileged_port_start"

// firstFreePort is the value of portSysctl in the pod, as far as the pod says.
func firstFreePort(pod *corev1.Pod) int {
	if sc := pod.Spec.SecurityContext; sc != nil {
		for _, s := range sc.Sysctls {
			if n, err := strconv.Atoi(s.Value); s.Name == portSysctl && err == nil {
				return n
			}
		}
	}
	return 1024
}
