package inject

import (
	"fmt"
	"path"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/semsharekv/semsharekv/configs"
)

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
		Args:            p.serve(),
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

// serve is the sidecar's command line.
func (p *planner) serve() []string {
	args := []string{"serve",
		"--backend", fmt.Sprintf("http://%s:%d", loopback, p.backend),
		"--slot-dir", p.slotDir,
		"--listen", p.clientAddress(),
		"--admin", fmt.Sprintf(":%d", p.admin),
	}
	add := func(flag, value string) {
		if value != "" {
			args = append(args, flag, value)
		}
	}
	if p.s.Config != "" {
		add("--config", path.Join(configPath, configKey))
	}
	if p.budget > 0 {
		add("--budget", configs.FormatSize(p.budget))
	}
	add("--reuse", p.s.Reuse)
	add("--log-level", p.s.LogLevel)
	if len(p.sidecarEnv) > 0 {
		add("--api-key-env", keyVariable)
	}
	return args
}
