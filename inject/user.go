package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// sidecarUser is the user of the sidecar's image.
const sidecarUser = 65532

// arrangeUser finds a user for the sidecar whose files the server can read and
// write, and the other way round. States hold what was asked, so their files are
// their user's alone: it must be the server's user, or the server must be root, and
// the directory ours: one that root made in a volume of its own is root's alone too.
func (p *planner) arrangeUser() error {
	uid, gid := effective(p.pod, p.c)
	root := uid == nil || *uid == 0
	switch {
	case p.s.RunAsUser != nil:
		uid = p.s.RunAsUser
	case uid == nil && runsAsNonRoot(p.pod, p.c):
		return refuse(kindUser, "container %q has runAsNonRoot but no runAsUser, and the sidecar must run as the same user; want one of them, or annotation %srun-as-user", p.c.Name, Prefix)
	case root && p.ownSlots && hasCapability(p.c, "DAC_OVERRIDE"):
		own := int64(sidecarUser)
		uid, gid = &own, &own
	case root:
		own := int64(0)
		uid = &own
	}
	p.user = restricted(*uid, gid)
	p.note("user=%d", *uid)
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
