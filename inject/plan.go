package inject

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/semsharekv/semsharekv/internal/llamaserver"
)

// Names and paths of what is injected.
const (
	sidecarName   = "semsharekv"
	agentName     = "semsharekv-agent"
	slotsVolume   = "semsharekv-slots"
	configVolume  = "semsharekv-config"
	agentVolume   = "semsharekv-agent"
	adminPortName = "semshare-admin"
	configPath    = "/semsharekv/config"
	configKey     = "semsharekv.yaml"
	programPath   = "/opt/semsharekv" // of the sidecar's image
	keyVariable   = "SEMSHAREKV_API_KEY"
)

// change is what injection does to a pod. Nothing of the pod is taken away, and
// of what stands there only the server's options and memory are changed.
type change struct {
	server    int // index of the server's container
	command   []string
	args      []string
	env       []corev1.EnvVar // added, or put over one of the same name
	mounts    []corev1.VolumeMount
	resources corev1.ResourceRequirements // the server's

	pullSecret     string                       // added to the pod's
	podResources   *corev1.ResourceRequirements // nil where the pod has none of its own
	initContainers []corev1.Container
	volumes        []corev1.Volume
	status         string
}

// planner gathers a change.
type planner struct {
	change
	pod *corev1.Pod
	s   Settings
	c   *corev1.Container // the server's
	cmd *command

	listenHost             string
	listen, backend, admin int
	slotDir                string
	ownSlots               bool              // the slot directory is the one that is injected
	slotMemory             resource.Quantity // of the slot directory, where it lies in memory
	budget                 int64             // bytes; 0: the sidecar's own choice
	user                   corev1.SecurityContext
	sidecarEnv             []corev1.EnvVar
	sidecarMounts          []corev1.VolumeMount
	notes                  []string
}

// plan decides what to do with a pod, or returns the Refusal.
func plan(pod *corev1.Pod, defaults Settings) (*change, error) {
	s, err := defaults.with(pod.Annotations)
	if err != nil {
		return nil, err
	}
	p := &planner{pod: pod, s: s, budget: s.Budget.Value()}
	for _, step := range []func() error{
		p.checkPod, p.findServer, p.checkServer, p.checkModel, p.checkNames,
		p.arrangePorts, p.checkPrivilege, p.arrangeSlots, p.arrangeUser, p.arrangeKey,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	p.showModel()
	if err := p.addConfig(); err != nil {
		return nil, err
	}
	p.separate()
	p.addAgent()
	p.addPullSecret()
	if err := p.addSidecar(); err != nil {
		return nil, err
	}
	p.command, p.args = p.cmd.command(), p.cmd.args()
	p.status = "injected; " + strings.Join(p.notes, "; ")
	return &p.change, nil
}

func (p *planner) note(format string, args ...any) {
	p.notes = append(p.notes, fmt.Sprintf(format, args...))
}

func (p *planner) checkPod() error {
	spec := &p.pod.Spec
	switch {
	case spec.HostNetwork:
		return refuse(kindPod, "the pod has hostNetwork, where the sidecar's ports and the server's would be the node's")
	case spec.OS != nil && spec.OS.Name == corev1.Windows:
		return refuse(kindPod, "the pod is a Windows pod; the sidecar runs on Linux")
	case p.pod.Annotations[corev1.MirrorPodAnnotationKey] != "":
		return refuse(kindPod, "the pod is a static one, which cannot be changed")
	}
	return nil
}

// findServer picks the container that the pod names, else the one that looks
// like a llama-server.
func (p *planner) findServer() error {
	containers := p.pod.Spec.Containers
	var found []int
	var names []string
	for i := range containers {
		if c := &containers[i]; p.s.Container == c.Name || p.s.Container == "" && runsServer(c) {
			found, names = append(found, i), append(names, c.Name)
		}
	}
	switch {
	case len(found) == 0 && p.s.Container != "":
		return refuse(kindContainer, "there is no container %q, which annotation %scontainer names", p.s.Container, Prefix)
	case len(found) == 0:
		return refuse(kindContainer, "no container runs llama-server; annotation %scontainer can name one", Prefix)
	case len(found) > 1:
		return refuse(kindContainer, "containers %s all run llama-server; want annotation %scontainer to name one", strings.Join(names, ", "), Prefix)
	}
	p.server, p.c = found[0], &containers[found[0]]
	var err error
	p.cmd, err = parseCommand(p.c, p.s.Container != "")
	p.note("container=%s", p.c.Name)
	return err
}

// checkServer refuses what cannot be shared, or not through the sidecar.
func (p *planner) checkServer() error {
	for _, o := range []struct {
		llamaserver.Option
		why string
	}{
		{llamaserver.TLSKey, "the sidecar reaches the server without TLS"},
		{llamaserver.TLSCert, "the sidecar reaches the server without TLS"},
		{llamaserver.Prefix, "the sidecar knows the server's paths without a prefix"},
		{llamaserver.KeyFile, "the sidecar cannot read the keys; want LLAMA_API_KEY from a Secret"},
	} {
		if _, given, _ := p.cmd.value(o.Option); given {
			return refuse(kindServer, "the server has %s: %s", o.Names[0], o.why)
		}
	}
	for _, o := range []struct {
		llamaserver.Option
		why string
	}{
		{llamaserver.Embeddings, "embeddings reuse no KV cache"},
		{llamaserver.Reranking, "reranking reuses no KV cache"},
	} {
		if on, _ := p.cmd.switches(o.Option); on {
			return refuse(kindServer, "the server has %s: %s", o.Names[0], o.why)
		}
	}
	if _, off := p.cmd.switches(llamaserver.Slots); off {
		return refuse(kindServer, "the server has %s: the sidecar needs /slots", llamaserver.Slots.Negated)
	}
	return nil
}

// checkNames refuses to mix with what happens to have our names.
func (p *planner) checkNames() error {
	for _, list := range [][]corev1.Container{p.pod.Spec.InitContainers, p.pod.Spec.Containers} {
		for i := range list {
			if n := list[i].Name; n == sidecarName || n == agentName {
				return refuse(kindName, "there is a container %q already", n)
			}
		}
	}
	for i := range p.pod.Spec.Volumes {
		if n := p.pod.Spec.Volumes[i].Name; slices.Contains([]string{slotsVolume, configVolume, agentVolume}, n) {
			return refuse(kindName, "there is a volume %q already", n)
		}
	}
	return nil
}

// addPullSecret lets the pod pull the sidecar's image. The secrets of its ServiceAccount are
// in the pod already.
func (p *planner) addPullSecret() {
	name := p.s.PullSecret
	if !slices.Contains(p.pod.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name}) {
		p.pullSecret = name
	}
}

// separate has the server keep no prompts in a cache of its own, which knows no
// tenants, unless it was given a size: a ConfigMap, which nobody sees here, may keep
// them apart.
func (p *planner) separate() {
	if _, given, _ := p.cmd.value(llamaserver.CacheRAM); p.s.Config != "" && !given {
		p.env = append(p.env, corev1.EnvVar{Name: llamaserver.CacheRAM.Env, Value: "0"})
	}
}
