package inject

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/rs/zerolog"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"
)

// controller-runtime logs what the tests provoke.
func TestMain(m *testing.M) {
	crlog.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

func testSettings() Settings {
	s := DefaultSettings()
	s.Image = "semsharekv:test"
	return s
}

func newInjector(t testing.TB) *injector {
	return &injector{settings: testSettings(), metrics: newMetrics(), log: zerolog.New(zerolog.NewTestWriter(t))}
}

func readPod(t testing.TB, file string) *corev1.Pod {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict(text, &pod); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return &pod
}

// testPod is the pod of the manual with a change.
func testPod(t testing.TB, edit func(*corev1.Pod)) *corev1.Pod {
	pod := readPod(t, "testdata/pod.yaml")
	if edit != nil {
		edit(pod)
	}
	return pod
}

// decide runs a pod through the injector.
func decide(t testing.TB, in *injector, pod *corev1.Pod) (*corev1.Pod, outcome) {
	t.Helper()
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	out, o, err := in.decide(raw)
	if err != nil {
		t.Fatal(err)
	}
	if out == nil {
		return pod, o
	}
	var after corev1.Pod
	if err := json.Unmarshal(out, &after); err != nil {
		t.Fatal(err)
	}
	return &after, o
}

func server(pod *corev1.Pod) *corev1.Container { return &pod.Spec.Containers[0] }

func sidecar(t testing.TB, pod *corev1.Pod) *corev1.Container {
	t.Helper()
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.Name == sidecarName {
			return c
		}
	}
	t.Fatalf("there is no sidecar: %s", pod.Annotations[annotationStatus])
	return nil
}

func annotate(pod *corev1.Pod, name, value string) { pod.Annotations[Prefix+name] = value }

// follows is the word behind another.
func follows(words []string, flag string) string {
	if i := slices.Index(words, flag); i >= 0 && i+1 < len(words) {
		return words[i+1]
	}
	return ""
}

func TestWhatStandsInTheServersCommandIsHeeded(t *testing.T) {
	f := func(edit func(c *corev1.Container), listen string, command, args string) {
		t.Helper()
		pod := testPod(t, func(p *corev1.Pod) { edit(server(p)) })
		after, _ := decide(t, newInjector(t), pod)
		if got := follows(sidecar(t, after).Args, "--listen"); got != listen {
			t.Errorf("the sidecar listens on %q, want %q", got, listen)
		}
		if got := strings.Join(server(after).Command, " "); got != command {
			t.Errorf("command %q, want %q", got, command)
		}
		if got := strings.Join(server(after).Args, " "); got != args {
			t.Errorf("args %q, want %q", got, args)
		}
		if ports := server(after).Ports; len(ports) != len(server(pod).Ports) {
			t.Errorf("ports %v, want them as they were", ports)
		}
	}
	args := func(words ...string) func(*corev1.Container) {
		return func(c *corev1.Container) { c.Args = words }
	}
	moved := "--host 127.0.0.1 --port 18080 --slot-save-path /semsharekv/slots"
	f(args("-m", "/m"), ":8080", "", "-m /m "+moved)
	f(args("--port", "9000"), ":9000", "", "--port 18080 --host 127.0.0.1 --slot-save-path /semsharekv/slots")
	f(args("--port", "9000", "--host", "::"), "[::]:9000", "", "--port 18080 --host 127.0.0.1 --slot-save-path /semsharekv/slots")
	f(args("--port=9000"), ":8080", "", "--port=9000 "+moved) // llama-server ends at this word, as it would have
	f(args("--port", "1", "--port", "9000"), ":9000", "", "--port 18080 --port 18080 --host 127.0.0.1 --slot-save-path /semsharekv/slots")
	f(args("--host", "localhost"), "127.0.0.1:8080", "", "--host 127.0.0.1 --port 18080 --slot-save-path /semsharekv/slots")
	f(args("--host", "0.0.0.0,::"), ":8080", "", "--host 127.0.0.1 --port 18080 --slot-save-path /semsharekv/slots")
	f(func(c *corev1.Container) {
		c.Args = []string{"--port", "$(PORT)"}
		c.Env = []corev1.EnvVar{{Name: "PORT", Value: "9100"}}
	}, ":9100", "", "--port 18080 --host 127.0.0.1 --slot-save-path /semsharekv/slots")
	f(func(c *corev1.Container) {
		c.Args = nil
		c.Env = []corev1.EnvVar{{Name: "LLAMA_ARG_PORT", Value: "9200"}, {Name: "LLAMA_ARG_HOST", Value: "0.0.0.0"}}
	}, "0.0.0.0:9200", "", moved)
	f(func(c *corev1.Container) {
		c.Image = "mine:1"
		c.Command = []string{"/usr/bin/tini", "--", "/app/llama-server", "--port", "9300"}
		c.Args = []string{"-m", "/m"}
	}, "127.0.0.1:9300", "/usr/bin/tini -- /app/llama-server --port 18080", "-m /m --host 127.0.0.1 --slot-save-path /semsharekv/slots")
	f(func(c *corev1.Container) {
		c.Image = "mine:1"
		c.Command = []string{"/app/llama"}
		c.Args = []string{"serve", "-m", "/m", "--port", "9300"}
	}, "127.0.0.1:9300", "/app/llama", "serve -m /m --port 18080 --host 127.0.0.1 --slot-save-path /semsharekv/slots")
	f(func(c *corev1.Container) {
		c.Image = "mine:1"
		c.Command = []string{"env", "llama", "serve"}
		c.Args = []string{"-m", "/m"}
	}, ":8080", "env llama serve", "-m /m "+moved)
	f(func(c *corev1.Container) {
		c.Image = "registry:5000/x/llama.cpp:full-cuda-b9000@sha256:0"
		c.Args = []string{"--server", "-m", "/m"}
	}, ":8080", "", "--server -m /m "+moved)
	f(func(c *corev1.Container) {
		c.Args = []string{"-m", "/m"}
		c.Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: 9400}}
	}, ":9400", "", "-m /m "+moved)
}

// A server that only its own pod can reach is not opened to others.
func TestTheSidecarListensWhereTheServerWould(t *testing.T) {
	f := func(want string, edit func(p *corev1.Pod)) {
		t.Helper()
		after, _ := decide(t, newInjector(t), testPod(t, func(p *corev1.Pod) {
			server(p).Args = []string{"-m", "/m"}
			server(p).Ports, server(p).ReadinessProbe = nil, nil
			edit(p)
		}))
		if got := follows(sidecar(t, after).Args, "--listen"); got != want {
			t.Errorf("the sidecar listens on %q, want %q", got, want)
		}
	}
	image := func(name string, args ...string) func(p *corev1.Pod) {
		return func(p *corev1.Pod) { server(p).Image, server(p).Args = name, append(args, "-m", "/m") }
	}
	host := func(v string) func(p *corev1.Pod) {
		return func(p *corev1.Pod) { server(p).Args = []string{"--host", v} }
	}
	probed := func(h string, port int) func(p *corev1.Pod) {
		return func(p *corev1.Pod) {
			image("me/llama-server:1")(p)
			get := &corev1.HTTPGetAction{Host: h, Port: intstr.FromInt(port)}
			server(p).LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: get}}
		}
	}
	f(":8080", image("ghcr.io/ggml-org/llama.cpp:server-cuda"))
	f("127.0.0.1:8080", image("ghcr.io/ggml-org/llama.cpp:full", "--server"))
	f("127.0.0.1:8080", image("me/llama-server:1"))
	f(":8080", func(p *corev1.Pod) {
		image("me/llama-server:1")(p)
		server(p).Ports = []corev1.ContainerPort{{ContainerPort: 8080}}
	})
	f("127.0.0.1:8080", func(p *corev1.Pod) {
		image("me/llama-server:1")(p)
		server(p).Args = []string{"--port", "8080"}
		server(p).Ports = []corev1.ContainerPort{{ContainerPort: 9090}}
	})
	f(":8080", probed("", 8080))
	f("127.0.0.1:8080", probed("", 9090))
	f("127.0.0.1:8080", probed("10.0.0.1", 8080))
	f("127.0.0.1:8080", host("127.0.0.1,::1"))
	f("[::1]:8080", host("::1, localhost"))
	f(":8080", host("10.0.0.1,0.0.0.0"))
	f("10.0.0.1:8080", host("10.0.0.1"))
	f("[fd00::1]:8080", func(p *corev1.Pod) {
		host("$(HOST)")(p)
		annotate(p, "listen-host", "fd00::1")
	})
}

func TestAPullSecretIsAdded(t *testing.T) {
	f := func(edit func(p *corev1.Pod), want ...corev1.LocalObjectReference) {
		t.Helper()
		in := newInjector(t)
		in.settings.PullSecret = "ours"
		after, _ := decide(t, in, testPod(t, edit))
		sidecar(t, after)
		if got := after.Spec.ImagePullSecrets; !slices.Equal(got, want) {
			t.Errorf("pull secrets %v, want %v", got, want)
		}
	}
	named := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	f(nil, named("ours"))
	f(func(p *corev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{named("theirs")} }, named("theirs"), named("ours"))
	f(func(p *corev1.Pod) { p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{named("ours")} }, named("ours"))
	f(func(p *corev1.Pod) { annotate(p, "pull-secret", "mine") }, named("mine"))
}

// A model that lies where the sidecar has its program would hide it.
func TestTheSidecarKeepsItsProgram(t *testing.T) {
	after, _ := decide(t, newInjector(t), testPod(t, func(p *corev1.Pod) {
		server(p).Args = []string{"-m", "/opt/m.gguf"}
		server(p).VolumeMounts[0].MountPath = "/opt"
	}))
	for _, m := range sidecar(t, after).VolumeMounts {
		if m.MountPath == "/opt" {
			t.Errorf("the sidecar has a volume at %s", m.MountPath)
		}
	}
}

func TestImagesOfAServerAreKnownByTheirWholeName(t *testing.T) {
	f := func(image string, want bool) {
		t.Helper()
		if got := runsServer(&corev1.Container{Image: image}); got != want {
			t.Errorf("%s runs a server: %v, want %v", image, got, want)
		}
	}
	f("llama.cpp:server", true)
	f("ghcr.io/ggml-org/llama.cpp:server-cuda-b9000@sha256:0", true)
	f("llama-server", true)
	f("me/llama-server:1-alpine", true)
	f("registry:5000/me/llama-cpp-server@sha256:0", true)
	f("me/llama-server-exporter:1", false)
	f("me/my-llama-server:1", false)
	f("llama-server/exporter", false)
	f("registry/llama.cpp:light", false)
}

func TestCommandsOfAServerAreKnown(t *testing.T) {
	f := func(want bool, command ...string) {
		t.Helper()
		if got := runsServer(&corev1.Container{Command: command[:1], Args: command[1:]}); got != want {
			t.Errorf("%q runs a server: %v, want %v", command, got, want)
		}
	}
	f(true, "/app/llama-server", "-m", "/m")
	f(true, "tini", "--", "llama", "serve")
	f(true, "sh", "-c", "exec /app/llama serve -m /m")
	f(true, "sh", "-c", "llama-server -m /m")
	f(false, "llama", "bench", "serve")
	f(false, "llama")
	f(false, "sh", "-c", "ollama serve")
	f(false, "ollama", "serve")
}

// Only what is certain to be a router is refused.
func TestAServerThatMayHaveAModelIsInjected(t *testing.T) {
	f := func(edit func(c *corev1.Container)) {
		t.Helper()
		after, _ := decide(t, newInjector(t), testPod(t, func(p *corev1.Pod) {
			server(p).Image, server(p).Args = bareServer, nil
			edit(server(p))
		}))
		sidecar(t, after)
	}
	for _, words := range []string{"-m /m", "-hf a/b", "--hf_repo a/b", "-dr gemma3", "--gpt-oss-20b-default", "--port $(PORT)"} {
		f(func(c *corev1.Container) {
			c.Args, c.Env = strings.Fields(words), []corev1.EnvVar{{Name: "PORT", Value: "8080"}}
		})
	}
	f(func(c *corev1.Container) { c.Env = []corev1.EnvVar{{Name: "LLAMA_ARG_HF_REPO", Value: "a/b"}} })
	f(func(c *corev1.Container) { c.EnvFrom = []corev1.EnvFromSource{{Prefix: "LLAMA_ARG_"}} })
	f(func(c *corev1.Container) { c.Image = "mine/llama.cpp:server" })
}

// bareServer is llama.cpp's own image.
const bareServer = "ghcr.io/ggml-org/llama.cpp:server"

func TestPortsThatAreInUseAreLeftOut(t *testing.T) {
	pod := testPod(t, func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "other", Ports: []corev1.ContainerPort{
			{ContainerPort: 18080}, {ContainerPort: 8090}, {ContainerPort: 18081}}})
	})
	after, _ := decide(t, newInjector(t), pod)
	if got := follows(server(after).Args, "--port"); got != "18082" {
		t.Errorf("the server is moved to %s, want 18082", got)
	}
	if got := follows(sidecar(t, after).Args, "--admin"); got != ":8091" {
		t.Errorf("the admin side is at %s, want :8091", got)
	}
}

// A low port needs a capability, a sysctl, or a server that needed one already.
func TestLowPortsThatTheSidecarMayHave(t *testing.T) {
	f := func(edit func(p *corev1.Pod)) {
		t.Helper()
		after, _ := decide(t, newInjector(t), testPod(t, func(p *corev1.Pod) {
			server(p).Args = []string{"-m", "/m", "--port", "80"}
			edit(p)
		}))
		if got := follows(sidecar(t, after).Args, "--listen"); got != ":80" {
			t.Errorf("the sidecar listens on %q, want :80", got)
		}
	}
	user := int64(1000)
	f(func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &user} })
	f(func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: portSysctl, Value: "80"}}}
	})
	f(func(p *corev1.Pod) {
		server(p).SecurityContext = &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
	})
}

func TestAnnotationsOverrule(t *testing.T) {
	pod := testPod(t, func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, *server(p).DeepCopy())
		p.Spec.Containers[1].Name = "second"
		for name, v := range map[string]string{
			"container": "llama", "image": "mine:2", "listen-port": "8000", "backend-port": "8001", "admin-port": "8002",
			"slot-path": "/s", "slot-size": "1Gi", "budget": "768Mi", "reuse": "exact", "config": "routes", "log-level": "debug",
			"run-as-user": "1234", "cpu-request": "1", "memory-limit": "3Gi", "server-memory": "keep",
		} {
			annotate(p, name, v)
		}
	})
	after, _ := decide(t, newInjector(t), pod)
	c := sidecar(t, after)
	want := "serve --backend http://127.0.0.1:8001 --slot-dir /s --listen 0.0.0.0:8000 --admin :8002 " +
		"--config /semsharekv/config/semsharekv.yaml --budget 768MiB --reuse exact --log-level debug"
	if got := strings.Join(c.Args, " "); got != want {
		t.Errorf("args %s\nwant %s", got, want)
	}
	if c.Image != "mine:2" || *c.SecurityContext.RunAsUser != 1234 {
		t.Errorf("image %s, user %d; want mine:2, 1234", c.Image, *c.SecurityContext.RunAsUser)
	}
	if r := c.Resources; r.Requests.Cpu().String() != "1" || r.Limits.Memory().String() != "3Gi" || r.Limits.Cpu().String() != "2" {
		t.Errorf("resources %v", r)
	}
	if m := server(after).Resources.Limits.Memory().String(); m != "8Gi" {
		t.Errorf("the server's memory limit is %s, want it kept", m)
	}
	for _, v := range after.Spec.Volumes {
		if v.Name == slotsVolume && v.EmptyDir.SizeLimit.String() != "1Gi" {
			t.Errorf("the slot directory has %s, want 1Gi", v.EmptyDir.SizeLimit)
		}
		if v.Name == configVolume && v.ConfigMap.Name != "routes" {
			t.Errorf("the ConfigMap is %s, want routes", v.ConfigMap.Name)
		}
	}
}

func TestTheServersOwnSlotDirectoryIsShared(t *testing.T) {
	f := func(edit func(p *corev1.Pod), budget string) {
		t.Helper()
		size := testSettings().SlotSize
		pod := testPod(t, func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "mine", VolumeSource: corev1.VolumeSource{
				EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &size}}})
			server(p).VolumeMounts = append(server(p).VolumeMounts, corev1.VolumeMount{Name: "mine", MountPath: "/data"})
			edit(p)
		})
		after, _ := decide(t, newInjector(t), pod)
		c := sidecar(t, after)
		if got := follows(c.Args, "--slot-dir"); got != "/data/slots" {
			t.Errorf("slot directory %s, want the server's", got)
		}
		if got := follows(c.Args, "--budget"); got != budget {
			t.Errorf("budget %q, want %q", got, budget)
		}
		if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "mine" && m.MountPath == "/data" && !m.ReadOnly }) {
			t.Errorf("mounts %v lack the server's", c.VolumeMounts)
		}
		if len(after.Spec.Volumes) != len(pod.Spec.Volumes) {
			t.Errorf("volumes %v, want none added", after.Spec.Volumes)
		}
	}
	f(func(p *corev1.Pod) { server(p).Args = append(server(p).Args, "--slot-save-path", "/data/slots/") }, "2GiB")
	f(func(p *corev1.Pod) {
		server(p).Env = append(server(p).Env, corev1.EnvVar{Name: "LLAMA_ARG_SLOT_SAVE_PATH", Value: "/data/slots"})
		p.Spec.Volumes[1].EmptyDir.SizeLimit = nil
	}, "")
	onClaim := func(p *corev1.Pod) {
		server(p).Args = append(server(p).Args, "--slot-save-path", "/data/slots")
		p.Spec.Volumes[1].VolumeSource = corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "mine"}}
	}
	f(onClaim, "")
	f(func(p *corev1.Pod) { onClaim(p); annotate(p, "budget", "50Gi") }, "50GiB")
}

// What the sidecar writes to a volume in memory counts as its own.
func TestTheServersOwnSlotsInMemoryAreTheSidecarsToo(t *testing.T) {
	f := func(medium corev1.StorageMedium, limit, podLimit string) {
		t.Helper()
		size := resource.MustParse("6Gi")
		after, _ := decide(t, newInjector(t), testPod(t, func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "mine", VolumeSource: corev1.VolumeSource{
				EmptyDir: &corev1.EmptyDirVolumeSource{Medium: medium, SizeLimit: &size}}})
			server(p).VolumeMounts = append(server(p).VolumeMounts, corev1.VolumeMount{Name: "mine", MountPath: "/data"})
			server(p).Args = append(server(p).Args, "--slot-save-path", "/data")
			p.Spec.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("8Gi")}}
		}))
		if got := sidecar(t, after).Resources.Limits.Memory().String(); got != limit {
			t.Errorf("medium %q: the sidecar's memory limit is %s, want %s", medium, got, limit)
		}
		if got := after.Spec.Resources.Limits.Memory().String(); got != podLimit {
			t.Errorf("medium %q: the pod's memory limit is %s, want %s", medium, got, podLimit)
		}
	}
	f(corev1.StorageMediumMemory, "7Gi", "15Gi")
	f(corev1.StorageMediumDefault, "1Gi", "9Gi")
}

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

func TestTheSidecarsUserCanShareFiles(t *testing.T) {
	f := func(edit func(p *corev1.Pod), user int64) {
		t.Helper()
		after, _ := decide(t, newInjector(t), testPod(t, edit))
		sc := sidecar(t, after).SecurityContext
		if *sc.RunAsUser != user || *sc.RunAsNonRoot != (user != 0) {
			t.Errorf("user %d, runAsNonRoot %v; want %d", *sc.RunAsUser, *sc.RunAsNonRoot, user)
		}
		if *sc.AllowPrivilegeEscalation || !*sc.ReadOnlyRootFilesystem || sc.Capabilities.Drop[0] != "ALL" || sc.SeccompProfile == nil {
			t.Errorf("security context %v is not restricted", sc)
		}
	}
	number := func(n int64) *int64 { return &n }
	drop := &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}
	f(func(p *corev1.Pod) {}, sidecarUser)
	f(func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: number(1000)} }, 1000)
	f(func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: number(1000)}
		server(p).SecurityContext = &corev1.SecurityContext{RunAsUser: number(2000)}
	}, 2000)
	f(func(p *corev1.Pod) { server(p).SecurityContext = &corev1.SecurityContext{RunAsUser: number(0)} }, sidecarUser)
	f(func(p *corev1.Pod) { server(p).SecurityContext = &corev1.SecurityContext{Capabilities: drop} }, 0)
	f(func(p *corev1.Pod) { server(p).Args = append(server(p).Args, "--slot-save-path", "/models/slots") }, 0)
}

func TestTheAPIKeyIsHandedOn(t *testing.T) {
	secret := &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{Key: "k", LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}}
	f := func(edit func(c *corev1.Container), value string, from *corev1.EnvVarSource) {
		t.Helper()
		after, _ := decide(t, newInjector(t), testPod(t, func(p *corev1.Pod) { edit(server(p)) }))
		c := sidecar(t, after)
		if follows(c.Args, "--api-key-env") != keyVariable || len(c.Env) != 1 || c.Env[0].Value != value || (c.Env[0].ValueFrom == nil) != (from == nil) {
			t.Errorf("args %v, env %v; want %q, %v", c.Args, c.Env, value, from)
		}
	}
	f(func(c *corev1.Container) { c.Args = append(c.Args, "--api-key", "abc") }, "abc", nil)
	f(func(c *corev1.Container) { c.Env = []corev1.EnvVar{{Name: "LLAMA_API_KEY", Value: "abc"}} }, "abc", nil)
	f(func(c *corev1.Container) { c.Env = []corev1.EnvVar{{Name: "LLAMA_API_KEY", ValueFrom: secret}} }, "", secret)
	f(func(c *corev1.Container) {
		c.Env = []corev1.EnvVar{{Name: "KEY", ValueFrom: secret}}
		c.Args = append(c.Args, "--api-key", "$(KEY)")
	}, "", secret)
}

// A ConfigMap may keep tenants apart, whom a cache of the server's own would mix.
func TestAConfigMapTurnsTheServersOwnCacheOff(t *testing.T) {
	f := func(edit func(p *corev1.Pod), want string) {
		t.Helper()
		after, _ := decide(t, newInjector(t), testPod(t, edit))
		sidecar(t, after)
		got, _, _ := newEnvironment(server(after).Env).get("LLAMA_ARG_CACHE_RAM")
		if got != want {
			t.Errorf("LLAMA_ARG_CACHE_RAM is %q, want %q", got, want)
		}
	}
	f(nil, "")
	f(func(p *corev1.Pod) { annotate(p, "config", "routes") }, "0")
	f(func(p *corev1.Pod) {
		annotate(p, "config", "routes")
		server(p).Args = append(server(p).Args, "-cram", "100")
	}, "")
	f(func(p *corev1.Pod) {
		annotate(p, "config", "routes")
		server(p).Env = []corev1.EnvVar{{Name: "LLAMA_ARG_CACHE_RAM", Value: "100"}}
	}, "100")
}

func TestTheAgentIsAppended(t *testing.T) {
	f := func(edit func(c *corev1.Container), want, note string) {
		t.Helper()
		after, _ := decide(t, newInjector(t), testPod(t, func(p *corev1.Pod) {
			annotate(p, "agent", "true")
			edit(server(p))
		}))
		got := ""
		for _, e := range server(after).Env {
			if e.Name == preload && e.ValueFrom == nil {
				got = e.Value
			}
		}
		if got != want {
			t.Errorf("LD_PRELOAD is %q, want %q", got, want)
		}
		if status := after.Annotations[annotationStatus]; !strings.Contains(status, note) {
			t.Errorf("status %q lacks %q", status, note)
		}
		sidecar(t, after) // without the agent sharing goes on
	}
	library := "/semsharekv/agent/libsemshare-agent.so"
	f(func(c *corev1.Container) {}, library, "agent=on")
	f(func(c *corev1.Container) { c.Env = []corev1.EnvVar{{Name: preload, Value: "/lib/jemalloc.so"}} }, "/lib/jemalloc.so:"+library, "agent=on")
	f(func(c *corev1.Container) {
		c.Env = []corev1.EnvVar{{Name: preload, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}
	}, "", "agent=off (LD_PRELOAD comes from elsewhere")
	f(func(c *corev1.Container) { c.Image = "me/llama-server:1-alpine" }, "", "agent=off (the image's name says musl")
	f(func(c *corev1.Container) {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "models", MountPath: agentPath})
	}, "", "agent=off (there is a volume at "+agentPath)
	f(func(c *corev1.Container) { c.Image = "me/llama-server:distroless" }, library, "agent=on")
}

// refusals are pods that are left as they are, by what is said.
var refusals = []struct {
	kind, says string
	edit       func(p *corev1.Pod)
}{
	{kindAnnotation, `semsharekv.io/inject is "yes"`, func(p *corev1.Pod) { annotate(p, "inject", "yes") }},
	{kindAnnotation, "semsharekv.io/slotsize is not known", func(p *corev1.Pod) { annotate(p, "slotsize", "1Gi") }},
	{kindAnnotation, "want a size", func(p *corev1.Pod) { annotate(p, "slot-size", "much") }},
	{kindAnnotation, "want an absolute path", func(p *corev1.Pod) { annotate(p, "slot-path", "slots") }},
	{kindAnnotation, "lies in /semsharekv/agent", func(p *corev1.Pod) { annotate(p, "slot-path", "/semsharekv/agent/") }},
	{kindAnnotation, "lies in /semsharekv/agent", func(p *corev1.Pod) { annotate(p, "slot-path", "/semsharekv") }},
	{kindAnnotation, "lies in /semsharekv/config", func(p *corev1.Pod) { annotate(p, "slot-path", "/semsharekv/config") }},
	{kindAnnotation, "lies in /opt/semsharekv", func(p *corev1.Pod) { annotate(p, "slot-path", "/opt") }},
	{kindAnnotation, "without spaces", func(p *corev1.Pod) { annotate(p, "image", " x") }},
	{kindAnnotation, "want an address", func(p *corev1.Pod) { annotate(p, "listen-host", "everywhere") }},
	{kindAnnotation, "want a port", func(p *corev1.Pod) { annotate(p, "listen-port", "70000") }},
	{kindAnnotation, "want one of off, exact, fuzzy", func(p *corev1.Pod) { annotate(p, "reuse", "all") }},
	{kindAnnotation, "exceeds the slot directory's 4Gi", func(p *corev1.Pod) { annotate(p, "budget", "100Gi") }},
	{kindAnnotation, "exceeds the slot directory's 1Gi", func(p *corev1.Pod) {
		size := resource.MustParse("1Gi")
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "mine", VolumeSource: corev1.VolumeSource{
			EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &size}}})
		server(p).VolumeMounts = append(server(p).VolumeMounts, corev1.VolumeMount{Name: "mine", MountPath: "/data"})
		server(p).Args = append(server(p).Args, "--slot-save-path", "/data")
		annotate(p, "budget", "2Gi")
	}},
	{kindAnnotation, "exceeds its limit", func(p *corev1.Pod) { annotate(p, "cpu-request", "3"); annotate(p, "cpu-limit", "2") }},
	{kindContainer, "no container runs llama-server", func(p *corev1.Pod) { server(p).Image = "nginx:1" }},
	{kindContainer, "no container runs llama-server", func(p *corev1.Pod) { server(p).Image = "me/llama-server-exporter:1" }},
	{kindContainer, `no container "gone"`, func(p *corev1.Pod) { annotate(p, "container", "gone") }},
	{kindContainer, "containers llama, second all run", func(p *corev1.Pod) {
		p.Spec.Containers = append(p.Spec.Containers, *server(p).DeepCopy())
		p.Spec.Containers[1].Name = "second"
	}},
	{kindCommand, "runs a shell line", func(p *corev1.Pod) {
		server(p).Command, server(p).Args = []string{"/bin/sh", "-c", "exec llama-server -m /m --port 8080"}, nil
	}},
	{kindCommand, "has env change its variables", func(p *corev1.Pod) {
		server(p).Command = []string{"tini", "--", "env", "LLAMA_ARG_HOST=127.0.0.1", "llama-server"}
	}},
	{kindCommand, "has env change its variables", func(p *corev1.Pod) { server(p).Command = []string{"env", "-i", "llama-server"} }},
	{kindCommand, "is not llama-server", func(p *corev1.Pod) {
		annotate(p, "container", "llama")
		server(p).Command = []string{"/start.sh"}
	}},
	{kindCommand, "begin with --server", func(p *corev1.Pod) {
		annotate(p, "container", "llama")
		server(p).Image, server(p).Args = "llama.cpp:full", []string{"--run"}
	}},
	{kindCommand, "neither command nor args", func(p *corev1.Pod) { server(p).Image, server(p).Args = "me/llama-server:1", nil }},
	{kindServer, "--ssl-key-file", func(p *corev1.Pod) { server(p).Args = append(server(p).Args, "--ssl-key-file", "/k") }},
	{kindServer, "Unix socket", func(p *corev1.Pod) { server(p).Args = []string{"--host", "/run/llama.sock"} }},
	{kindServer, "Unix socket", func(p *corev1.Pod) {
		annotate(p, "listen-host", "0.0.0.0")
		server(p).Args = []string{"--host", "/run/llama.sock"}
	}},
	{kindServer, "--host \"\" cannot be told", func(p *corev1.Pod) {
		server(p).Args = []string{"-m", "/m"}
		server(p).Env = []corev1.EnvVar{{Name: "LLAMA_ARG_HOST", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}}}
	}},
	{kindServer, "--host \"$(HOST)\" cannot be told", func(p *corev1.Pod) { server(p).Args = []string{"--host", "$(HOST)"} }},
	{kindServer, "on one address", func(p *corev1.Pod) { server(p).Args = []string{"--host", "127.0.0.1,10.0.0.1"} }},
	{kindServer, "--api-prefix", func(p *corev1.Pod) { server(p).Args = append(server(p).Args, "--api_prefix", "/x") }},
	{kindServer, "--api-key-file", func(p *corev1.Pod) { server(p).Args = append(server(p).Args, "--api-key-file", "/k") }},
	{kindServer, "API key is optional", func(p *corev1.Pod) {
		yes := true
		from := &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: "k", Optional: &yes}}
		server(p).Env = append(server(p).Env, corev1.EnvVar{Name: "LLAMA_API_KEY", ValueFrom: from})
	}},
	{kindServer, "--api-key cannot be told", func(p *corev1.Pod) {
		server(p).Args = append(server(p).Args, "--api-key", "a$(KEY)")
		server(p).Env = []corev1.EnvVar{{Name: "KEY", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}
	}},
	{kindServer, "--models-dir", func(p *corev1.Pod) { server(p).Args = append(server(p).Args, "--models-dir", "/m") }},
	{kindServer, "--models-preset", func(p *corev1.Pod) {
		server(p).Env = []corev1.EnvVar{{Name: "LLAMA_ARG_MODELS_PRESET", Value: "/models/p.ini"}}
	}},
	{kindServer, "names no model", func(p *corev1.Pod) { server(p).Image, server(p).Args = bareServer, []string{"--port", "8080"} }},
	{kindServer, "names no model", func(p *corev1.Pod) {
		server(p).Image, server(p).Command, server(p).Args = bareServer, []string{"/app/llama", "serve"}, nil
	}},
	{kindCommand, "runs a shell line", func(p *corev1.Pod) {
		server(p).Command, server(p).Args = []string{"sh", "-c", "llama serve -m /m"}, nil
	}},
	{kindServer, "--embedding", func(p *corev1.Pod) {
		server(p).Env = []corev1.EnvVar{{Name: "LLAMA_ARG_EMBEDDINGS", Value: "1"}}
	}},
	{kindServer, "--no-slots", func(p *corev1.Pod) { server(p).Args = append(server(p).Args, "--no-slots") }},
	{kindPort, "cannot be told", func(p *corev1.Pod) {
		server(p).Args = []string{"--port", "$(PORT)"}
		server(p).Env = []corev1.EnvVar{{Name: "PORT", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}
	}},
	{kindPort, "declares several", func(p *corev1.Pod) {
		server(p).Args = []string{"-m", "/m"}
		server(p).Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: 1}, {Name: "b", ContainerPort: 2}}
	}},
	{kindPort, "port 8080 is in use", func(p *corev1.Pod) { annotate(p, "backend-port", "8080") }},
	{kindPort, "listens on port 80 as root", func(p *corev1.Pod) { server(p).Args = []string{"-m", "/m", "--port", "80"} }},
	{kindVolume, "has a volume at /semsharekv", func(p *corev1.Pod) {
		server(p).VolumeMounts = append(server(p).VolumeMounts, corev1.VolumeMount{Name: "models", MountPath: "/semsharekv"})
	}},
	{kindVolume, "where the sidecar has its configuration", func(p *corev1.Pod) {
		annotate(p, "config", "routes")
		server(p).Args = []string{"-m", "/semsharekv/config/m.gguf"}
		server(p).VolumeMounts[0].MountPath = configPath
	}},
	{kindVolume, "where the sidecar has its program", func(p *corev1.Pod) {
		server(p).Args = append(server(p).Args, "--slot-save-path", "/opt/slots")
		server(p).VolumeMounts[0].MountPath = "/opt"
	}},
	{kindVolume, "on no volume", func(p *corev1.Pod) { server(p).Args = append(server(p).Args, "--slot-save-path", "/slots") }},
	{kindVolume, "read-only", func(p *corev1.Pod) {
		server(p).VolumeMounts[0].ReadOnly = true
		server(p).Args = append(server(p).Args, "--slot-save-path", "/models/slots")
	}},
	{kindVolume, "want a sizeLimit", func(p *corev1.Pod) {
		p.Spec.Volumes[0] = corev1.Volume{Name: "models", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}}
		server(p).Args = append(server(p).Args, "--slot-save-path", "/models/slots")
	}},
	{kindVolume, "absolute", func(p *corev1.Pod) { server(p).Args = append(server(p).Args, "--slot-save-path", "slots") }},
	{kindName, `container "semsharekv" already`, func(p *corev1.Pod) {
		p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: sidecarName, Image: "x"})
	}},
	{kindName, `volume "semsharekv-slots" already`, func(p *corev1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: slotsVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	}},
	{kindUser, "runAsNonRoot but no runAsUser", func(p *corev1.Pod) {
		yes := true
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: &yes}
	}},
	{kindPod, "hostNetwork", func(p *corev1.Pod) { p.Spec.HostNetwork = true }},
	{kindPod, "Windows", func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} }},
}

func TestRefusalsAreNamed(t *testing.T) {
	for _, r := range refusals {
		pod := testPod(t, r.edit)
		after, o := decide(t, newInjector(t), pod)
		status := after.Annotations[annotationStatus]
		if o.refusal == nil || o.refusal.Kind != r.kind || !strings.HasPrefix(status, "not injected; reason=") || !strings.Contains(status, r.says) {
			t.Errorf("status %q, want one of kind %s that says %q", status, r.kind, r.says)
		}
		delete(after.Annotations, annotationStatus)
		if a, b := text(t, pod), text(t, after); a != b {
			t.Errorf("%s: the pod was changed:\n%s\n%s", r.says, a, b)
		}
	}
}

func TestKubernetesThatIsTooOld(t *testing.T) {
	f := func(major, minor string, fit bool) {
		t.Helper()
		if why := unfitVersion(major, minor); (why == "") != fit {
			t.Errorf("%s.%s: %q", major, minor, why)
		}
	}
	f("1", "28", false)
	f("1", "28+", false)
	f("1", "29", true)
	f("1", "37", true)
	in := newInjector(t)
	in.unfit = unfitVersion("1", "28")
	if _, o := decide(t, in, testPod(t, nil)); o.refusal == nil || o.refusal.Kind != kindKubernetes {
		t.Errorf("%v, want a refusal", o)
	}
}

func TestOptOutAndInjectedPodsAreLeftAlone(t *testing.T) {
	in := newInjector(t)
	pod := testPod(t, func(p *corev1.Pod) { annotate(p, "inject", "false") })
	if after, _ := decide(t, in, pod); text(t, after) != text(t, pod) {
		t.Errorf("a pod that opted out was changed: %s", text(t, after))
	}
	once, o := decide(t, in, testPod(t, nil))
	if !o.done {
		t.Fatalf("not injected: %v", o)
	}
	if twice, o := decide(t, in, once); o.done || text(t, twice) != text(t, once) {
		t.Errorf("a second time changed the pod: %s", text(t, twice))
	}
}

// Fields that this program's API does not know stay as they are.
func TestUnknownFieldsStay(t *testing.T) {
	raw := []byte(`{"metadata":{"annotations":{"semsharekv.io/inject":"true"},"new":1},
		"spec":{"new":{"a":[1]},"containers":[{"name":"l","image":"llama.cpp:server","args":["-m","/m"],"new":"x"}]}}`)
	out, o, err := newInjector(t).decide(raw)
	if err != nil || !o.done {
		t.Fatalf("%v, %v", o, err)
	}
	for _, want := range []string{`"new":{"a":[1]}`, `"new":"x"`, `"new":1`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%s is gone: %s", want, out)
		}
	}
}

func text(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
