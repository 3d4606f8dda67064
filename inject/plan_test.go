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

// refusal is a pod that is left as it is, by what is said.
type refusal struct {
	kind, says string
	edit       func(p *corev1.Pod)
}

// refusals are the webhook's and the policy's.
var refusals = []refusal{
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
	{kindServer, "--models-dir", func(p *corev1.Pod) { server(p).Args = []string{"--models-dir", "/m"} }},
	{kindServer, "--models-preset", func(p *corev1.Pod) {
		server(p).Args = nil
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
	{kindServer, "--no-slots", func(p *corev1.Pod) {
		server(p).Env = []corev1.EnvVar{{Name: "LLAMA_ARG_NO_ENDPOINT_SLOTS", Value: "0"}}
	}},
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

// variableRefusals are of what variables say.
var variableRefusals = []refusal{
	{kindServer, "--no-slots", func(p *corev1.Pod) {
		server(p).Env = []corev1.EnvVar{{Name: "LLAMA_ARG_ENDPOINT_SLOTS", Value: "off"}}
	}},
	{kindPort, "AIP_MODE", func(p *corev1.Pod) { server(p).Env = []corev1.EnvVar{hidden("AIP_MODE")} }},
	{kindPort, "AIP_HTTP_PORT", func(p *corev1.Pod) {
		server(p).Env = []corev1.EnvVar{{Name: "AIP_MODE", Value: "PREDICTION"}, hidden("AIP_HTTP_PORT")}
	}},
	{kindPort, "AIP_HTTP_PORT", func(p *corev1.Pod) {
		server(p).Env = []corev1.EnvVar{{Name: "AIP_MODE", Value: "PREDICTION"}, {Name: "AIP_HTTP_PORT", Value: "x"}}
	}},
}

func TestRefusalsAreNamed(t *testing.T) {
	for _, r := range slices.Concat(refusals, variableRefusals) {
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
