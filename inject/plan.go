package inject

import (
	"fmt"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/semsharekv/semsharekv/configs"
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

// Usual ports.
const (
	serverPort  = 8080 // llama-server's own
	backendPort = 18080
	adminPort   = 8090
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
	budget                 int64
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
	p := &planner{pod: pod, s: s}
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
		{llamaserver.ModelsDir, "a server of several models does not save slots"},
		{llamaserver.ModelsPreset, "a server of several models does not save slots"},
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
		{llamaserver.NoSlots, "the sidecar needs /slots"},
	} {
		if p.cmd.has(o.Option) {
			return refuse(kindServer, "the server has %s: %s", o.Names[0], o.why)
		}
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

// arrangePorts gives the server's port to the sidecar and moves the server to
// another one on the loopback address. The declaration of the port stays with
// the server's container: Services, probes, NetworkPolicies and host ports find
// it there by name, and a declaration does not say who listens.
func (p *planner) arrangePorts() error {
	var err error
	if p.listen, err = p.clientPort(); err != nil {
		return err
	}
	if p.listenHost, err = p.clientHost(); err != nil {
		return err
	}
	taken := p.declaredPorts()
	taken[p.listen] = true
	for _, own := range []struct {
		port   *int
		wanted int
		usual  int
		name   string
	}{{&p.backend, p.s.BackendPort, backendPort, "backend-port"}, {&p.admin, p.s.AdminPort, adminPort, "admin-port"}} {
		*own.port = own.wanted
		if own.wanted == 0 {
			for *own.port = own.usual; taken[*own.port]; *own.port++ {
			}
		} else if taken[own.wanted] {
			return refuse(kindPort, "annotation %s%s: port %d is in use in the pod", Prefix, own.name, own.wanted)
		}
		taken[*own.port] = true
	}
	p.cmd.set(llamaserver.Host, "127.0.0.1")
	p.cmd.set(llamaserver.Port, strconv.Itoa(p.backend))
	p.note("listen=%s", p.clientAddress())
	p.note("backend=127.0.0.1:%d", p.backend)
	return nil
}

// clientAddress is where the sidecar listens for clients.
func (p *planner) clientAddress() string {
	return net.JoinHostPort(p.listenHost, strconv.Itoa(p.listen))
}

func (p *planner) declaredPorts() map[int]bool {
	ports := map[int]bool{}
	for _, list := range [][]corev1.Container{p.pod.Spec.InitContainers, p.pod.Spec.Containers} {
		for i := range list {
			for _, port := range list[i].Ports {
				ports[int(port.ContainerPort)] = true
			}
		}
	}
	return ports
}

// clientPort is the port that clients use: the annotation's, the server's, or
// where neither is given the one that is declared.
func (p *planner) clientPort() (int, error) {
	if p.s.ListenPort != 0 {
		return p.s.ListenPort, nil
	}
	v, given, known := p.cmd.value(llamaserver.Port)
	if given {
		var n int
		if !known || port(&n, v) != nil {
			return 0, refuse(kindPort, "the server's port %q cannot be told; want annotation %slisten-port", v, Prefix)
		}
		return n, nil
	}
	switch declared := p.serverPorts(); {
	case len(declared) == 0 || slices.Contains(declared, serverPort):
		return serverPort, nil
	case len(declared) == 1:
		return declared[0], nil
	}
	return 0, refuse(kindPort, "the server's port is not given and container %q declares several; want annotation %slisten-port", p.c.Name, Prefix)
}

// serverPorts are the TCP ports that the server's container declares.
func (p *planner) serverPorts() (ports []int) {
	for _, port := range p.c.Ports {
		if port.Protocol == corev1.ProtocolTCP || port.Protocol == "" {
			ports = append(ports, int(port.ContainerPort))
		}
	}
	return ports
}

// checkPrivilege refuses a port that a server which is root may listen on and the
// sidecar, which has no capabilities, may not. Another server needs the node's leave
// for such a port already.
func (p *planner) checkPrivilege() error {
	uid, _ := effective(p.pod, p.c)
	root := uid == nil && !runsAsNonRoot(p.pod, p.c) || uid != nil && *uid == 0
	if root && p.listen < firstFreePort(p.pod) && hasCapability(p.c, "NET_BIND_SERVICE") {
		return refuse(kindPort, "the server listens on port %d as root, and the sidecar, which has no capabilities, may not; want a port of 1024 or more, or the sysctl %s in the pod's securityContext", p.listen, portSysctl)
	}
	return nil
}

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
	p.budget = size.Value() / 2
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

// keepIdleSlots asks the server not to put away slots that were just filled. It
// does so by a variable: servers that do not know the option would end at a flag.
func (p *planner) keepIdleSlots() {
	variable := llamaserver.IdleSlots.Env
	if _, given, _ := p.cmd.env.get(variable); !given {
		p.env = append(p.env, corev1.EnvVar{Name: variable, Value: "0"})
	}
}

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

// arrangeKey hands the server's API key to the sidecar, for its own requests.
func (p *planner) arrangeKey() error {
	v, given, known := p.cmd.value(llamaserver.APIKey)
	if !given {
		return nil
	}
	variable := llamaserver.APIKey.Env
	for word := range llamaserver.APIKey.Values(p.cmd.options()) {
		variable = ""
		if strings.HasPrefix(*word, "$(") && strings.HasSuffix(*word, ")") {
			variable = (*word)[2 : len(*word)-1]
		}
	}
	key := corev1.EnvVar{Name: keyVariable, Value: strings.ReplaceAll(v, "$", "$$")}
	for _, e := range p.c.Env {
		if e.Name == variable && e.ValueFrom != nil {
			key, known = corev1.EnvVar{Name: keyVariable, ValueFrom: e.ValueFrom}, true
		}
	}
	if !known {
		return refuse(kindServer, "the server's --api-key cannot be told; want LLAMA_API_KEY from a Secret")
	}
	if optional(key.ValueFrom) {
		return refuse(kindServer, "the server's API key is optional, and the sidecar does not start without; want it from a Secret that must be there")
	}
	p.sidecarEnv = append(p.sidecarEnv, key)
	return nil
}

// optional tells whether a variable may be left unset.
func optional(from *corev1.EnvVarSource) bool {
	if from == nil {
		return false
	}
	yes := func(b *bool) bool { return b != nil && *b }
	return from.SecretKeyRef != nil && yes(from.SecretKeyRef.Optional) || from.ConfigMapKeyRef != nil && yes(from.ConfigMapKeyRef.Optional)
}

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

// serve is the sidecar's command line.
func (p *planner) serve() []string {
	args := []string{"serve",
		"--backend", fmt.Sprintf("http://127.0.0.1:%d", p.backend),
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
	if budget := p.s.Budget.Value(); budget > 0 {
		p.budget = budget
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
