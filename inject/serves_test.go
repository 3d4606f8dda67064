package inject

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidwall/gjson"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/semsharekv/semsharekv/internal/lab"
)

// node runs a pod's containers as processes of this machine, in the kubelet's
// order. Images are programs, volumes directories; where a path of a volume stands
// in a command or a variable, the directory's stands in its place.
type node struct {
	t       *testing.T
	pod     *corev1.Pod
	images  map[string]string // image: the program that its entrypoint is
	volumes map[string]string // volume: directory
	root    string
	procs   map[string]*exec.Cmd
}

// newNode makes the directories of the pod's own volumes. The root can be read by
// all users, since containers run as different ones.
func newNode(t *testing.T, pod *corev1.Pod, images, volumes map[string]string) *node {
	t.Helper()
	root := shared(t)
	n := &node{t: t, pod: pod, images: images, volumes: volumes, root: root, procs: map[string]*exec.Cmd{}}
	for _, v := range pod.Spec.Volumes {
		if v.EmptyDir == nil {
			continue
		}
		dir := filepath.Join(root, v.Name)
		mustDo(t, os.Mkdir(dir, 0o777))
		mustDo(t, os.Chmod(dir, 0o777)) // as the kubelet makes them
		n.volumes[v.Name] = dir
	}
	t.Cleanup(func() {
		for name := range n.procs {
			n.procs[name].Process.Kill()
			n.procs[name].Wait()
		}
	})
	return n
}

// shared is a directory in memory that every user may enter.
func shared(t testing.TB) string {
	t.Helper()
	base := "/dev/shm"
	if _, err := os.Stat(base); err != nil {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "semsharekv-pod-")
	mustDo(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	mustDo(t, os.Chmod(dir, 0o755))
	return dir
}

func mustDo(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run brings the pod up: init containers in order, a native sidecar until its
// startup probe succeeds, then the containers.
func (n *node) run() {
	n.t.Helper()
	for i := range n.pod.Spec.InitContainers {
		c := &n.pod.Spec.InitContainers[i]
		cmd := n.start(c)
		if c.RestartPolicy == nil {
			if err := cmd.Wait(); err != nil {
				n.t.Fatalf("init container %s: %v\n%s", c.Name, err, n.log(c.Name))
			}
			delete(n.procs, c.Name)
			continue
		}
		n.await(c, c.StartupProbe)
	}
	for i := range n.pod.Spec.Containers {
		n.start(&n.pod.Spec.Containers[i])
	}
}

func (n *node) start(c *corev1.Container) *exec.Cmd {
	n.t.Helper()
	program := n.images[c.Image]
	words := append([]string{program}, c.Args...)
	if len(c.Command) > 0 {
		words = append(append([]string{}, c.Command...), c.Args...)
		words[0] = program // the images here hold one program each
	}
	env := newEnvironment(c.Env)
	for i, w := range words {
		w, known := env.expand(w)
		if !known {
			n.t.Fatalf("container %s: %q is not known", c.Name, words[i])
		}
		words[i] = n.here(c, w)
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	for name, v := range env {
		if v != nil {
			cmd.Env = append(cmd.Env, name+"="+n.here(c, *v))
		}
	}
	if sc := c.SecurityContext; os.Getuid() == 0 && sc != nil && sc.RunAsUser != nil {
		gid := int64(0)
		if sc.RunAsGroup != nil {
			gid = *sc.RunAsGroup
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(*sc.RunAsUser), Gid: uint32(gid)}}
	}
	log, err := os.Create(filepath.Join(n.root, c.Name+".log"))
	mustDo(n.t, err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = n.root
	if err := cmd.Start(); err != nil {
		n.t.Fatalf("container %s: %v", c.Name, err)
	}
	n.procs[c.Name] = cmd
	return cmd
}

// here puts the directory of a volume in the place of its mount path.
func (n *node) here(c *corev1.Container, s string) string {
	for _, m := range c.VolumeMounts {
		s = strings.ReplaceAll(s, m.MountPath, n.volumes[m.Name])
	}
	return s
}

// sharing is a field of the line by which the sidecar says how it shares.
func (n *node) sharing(field string) string {
	text, _ := os.ReadFile(filepath.Join(n.root, sidecarName+".log"))
	for line := range strings.Lines(string(text)) {
		if gjson.Get(line, "message").Str == "sharing" {
			return gjson.Get(line, field).Str
		}
	}
	return ""
}

func (n *node) log(container string) string {
	text, _ := os.ReadFile(filepath.Join(n.root, container+".log"))
	if len(text) > 4000 {
		text = text[len(text)-4000:]
	}
	return string(text)
}

// await asks an HTTP probe until it succeeds, at the port that it names.
func (n *node) await(c *corev1.Container, p *corev1.Probe) {
	n.t.Helper()
	url := fmt.Sprintf("http://127.0.0.1:%d%s", portOf(n.t, []corev1.Container{*c}, p.HTTPGet.Port), p.HTTPGet.Path)
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if resp, err := http.Get(url); err == nil {
			resp.Body.Close()
			if resp.StatusCode >= 200 && resp.StatusCode < 400 {
				return
			}
		}
		if time.Now().After(end) {
			n.t.Fatalf("the probe %s of container %s does not succeed\n%s", url, c.Name, n.log(c.Name))
		}
	}
}

// portOf resolves a port as Services and probes do: by name in the containers'
// declarations.
func portOf(t testing.TB, containers []corev1.Container, p intstr.IntOrString) int {
	t.Helper()
	if p.Type == intstr.Int {
		return p.IntValue()
	}
	for _, c := range containers {
		for _, declared := range c.Ports {
			if declared.Name == p.StrVal {
				return int(declared.ContainerPort)
			}
		}
	}
	t.Fatalf("no container declares the port %s", p.StrVal)
	return 0
}

// end stops the pod as the kubelet does: the containers, then the sidecars. It
// returns how the sidecar ended.
func (n *node) end() error {
	n.t.Helper()
	stop := func(c *corev1.Container) error {
		cmd := n.procs[c.Name]
		if cmd == nil {
			return nil
		}
		delete(n.procs, c.Name)
		cmd.Process.Signal(syscall.SIGTERM)
		return cmd.Wait()
	}
	for i := range n.pod.Spec.Containers {
		stop(&n.pod.Spec.Containers[i])
	}
	return stop(sidecar(n.t, n.pod))
}

// tale is some 300 tokens; the year is a parameter.
func tale(year string) string {
	return "The lighthouse at Carrow Point was built in " + year + " by a company of masons who came down from the hills with their tools in barrows. " +
		strings.Repeat("They cut the granite from the cliff itself and carried it up on their backs, and the tower rose slowly over three summers. ", 4) +
		`The keeper lived in a low house beside it with a stove, a table and a shelf of books that the sea air had swollen. Every evening he
climbed the narrow stairs, trimmed the wick, and lit the lamp, and every morning he put it out again and wrote the weather into a ledger.
Ships that passed to the north saw the light and turned away from the reef; ships that passed to the south did not see it at all, because
of the headland, and had to trust to their charts. In winter the wind pulled at the shutters for weeks, and the path to the village was lost
under drifts, so that the keeper spoke to nobody but the gulls.`
}

// routes is the ConfigMap's file. The machine may be busy, so nothing is given up
// for being slow.
const routes = `
index: {timeout: 5s}
store: {min_tokens: 64}
defaults: {min_tokens: 64, time_budget: 30s}
routes:
  - {name: private, match: {headers: {X-Private: "yes"}}, reuse: "off"}
`

// testServes takes a pod from the API server, runs what it says on this machine,
// and shares a prompt through its Service's port.
func (c *cluster) testServes(t *testing.T) {
	program, model := lab.ServerCommand(t)
	images := map[string]string{"llama.cpp:server": program, "semsharekv:test": buildSidecar(t)}
	config, models := shared(t), shared(t)
	mustDo(t, os.WriteFile(filepath.Join(config, configKey), []byte(routes), 0o644))
	copyFile(t, model, filepath.Join(models, "model.gguf"))
	ports := make([]int, 3)
	for i := range ports {
		var err error
		ports[i], err = lab.FreePort()
		mustDo(t, err)
	}

	c.namespace(t, "serves", nil)
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "serves", Name: "llama"},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}}}}
	c.create(t, service)
	pod := c.pod(t, "serves", testPod(t, func(p *corev1.Pod) {
		annotate(p, "config", "routes")
		annotate(p, "agent", "true")
		annotate(p, "backend-port", fmt.Sprint(ports[1]))
		annotate(p, "admin-port", fmt.Sprint(ports[2]))
		server(p).Args = []string{"--model", "/models/model.gguf", "-c", "2048", "-np", "2", "--host", "127.0.0.1", "--port", fmt.Sprint(ports[0]), "--no-warmup"}
		server(p).Ports[0].ContainerPort = int32(ports[0])
		server(p).Env = []corev1.EnvVar{{Name: "LLAMA_API_KEY", Value: "secret-of-the-server"}}
	}))
	wantInjected(t, pod)
	n := newNode(t, pod, images, map[string]string{"models": models, configVolume: config})
	n.run()
	n.await(server(pod), server(pod).ReadinessProbe)
	admin := fmt.Sprintf("http://127.0.0.1:%d", ports[2])
	until(t, "the sidecar has tried out its server", func() bool {
		resp, err := http.Get(admin + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	url := fmt.Sprintf("http://127.0.0.1:%d", portOf(t, pod.Spec.Containers, service.Spec.Ports[0].TargetPort))
	ask := func(prompt string, headers ...string) string {
		t.Helper()
		body, _ := json.Marshal(map[string]any{"prompt": prompt, "n_predict": 2, "temperature": 0})
		req, _ := http.NewRequest(http.MethodPost, url+"/completion", strings.NewReader(string(body)))
		req.Header.Set("Authorization", "Bearer secret-of-the-server")
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		mustDo(t, err)
		defer resp.Body.Close()
		answer, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("status %d: %s\nsidecar: %s\nserver: %s", resp.StatusCode, answer, n.log(sidecarName), n.log("llama"))
		}
		return resp.Header.Get("X-SemShareKV")
	}
	if did := ask(tale("1812")); !strings.HasPrefix(did, "cold") {
		t.Errorf("the first prompt was %q, want cold", did)
	}
	until(t, "the first prompt is kept", func() bool { return strings.Contains(get(t, admin+"/metrics"), `captures_total{result="kept"} 1`) })
	if did := ask("Once more. " + tale("1812")); !strings.HasPrefix(did, "shared") {
		t.Errorf("the similar prompt was %q, want shared\n%s", did, n.log(sidecarName))
	}
	if did := ask("Again now. "+tale("1812"), "X-Private", "yes"); strings.HasPrefix(did, "shared") {
		t.Errorf("a prompt of a route that is off was %q", did)
	}
	// The server is the test's user, root in CI, and the sidecar is not.
	if kernels := n.sharing("agent_kernels"); kernels == "" {
		t.Errorf("the sidecar reads nothing of what the agent replies\n%s", n.log(sidecarName))
	}
	if left, err := filepath.Glob(filepath.Join(n.volumes[slotsVolume], "*.re*")); err != nil || len(left) > 0 {
		t.Errorf("recipes or replies are left: %v (%v)", left, err)
	}
	if maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", n.procs["llama"].Process.Pid)); err != nil || !strings.Contains(string(maps), agentLibrary) {
		t.Errorf("the server has not loaded %s (%v)", agentLibrary, err)
	}
	if err := n.end(); err != nil {
		t.Errorf("the sidecar ended with %v, so that a Job would fail\n%s", err, n.log(sidecarName))
	}
}

func get(t testing.TB, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	mustDo(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	mustDo(t, err)
	return string(text)
}

// buildSidecar makes what the image holds: the program and its libraries.
func buildSidecar(t testing.TB) string {
	t.Helper()
	dir := shared(t)
	program := filepath.Join(dir, "semsharekv")
	cmd := exec.Command("go", "build", "-o", program, "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the sidecar: %v\n%s", err, out)
	}
	kernels, agent := filepath.Join("..", "bin", "libsemshare.so"), filepath.Join("..", "bin", agentLibrary)
	copyFile(t, kernels, filepath.Join(dir, "libsemshare.so"))
	copyFile(t, agent, filepath.Join(dir, agentLibrary))
	return program
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	mustDo(t, err)
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE, 0o755)
	mustDo(t, err)
	_, err = io.Copy(out, in)
	mustDo(t, err)
	mustDo(t, out.Close())
}
