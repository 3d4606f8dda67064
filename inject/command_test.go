package inject

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

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
	f(true, "tini", "--", "llama", "server", "-m", "/m")
	f(true, "sh", "-c", "exec /app/llama serve -m /m")
	f(true, "sh", "-c", "exec /app/llama server -m /m")
	f(false, "sh", "-c", "llama servers")
	f(true, "sh", "-c", "llama-server -m /m")
	f(false, "llama", "bench", "serve")
	f(false, "llama")
	f(false, "sh", "-c", "ollama serve")
	f(false, "ollama", "serve")
}

// Only a server that certainly has no /slots is refused.
func TestAServerThatHasSlotsIsInjected(t *testing.T) {
	f := func(args string, env ...corev1.EnvVar) {
		t.Helper()
		after, _ := decide(t, newInjector(t), testPod(t, func(p *corev1.Pod) {
			server(p).Args, server(p).Env = strings.Fields(args), env
		}))
		sidecar(t, after)
	}
	name := &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}
	f("-m /m --no-slots --slots")
	f("-m /m --slots", corev1.EnvVar{Name: "LLAMA_ARG_NO_ENDPOINT_SLOTS", Value: "1"})
	f("-m /m", corev1.EnvVar{Name: "LLAMA_ARG_ENDPOINT_SLOTS", Value: "1"})
	f("-m /m", corev1.EnvVar{Name: "LLAMA_ARG_ENDPOINT_SLOTS", ValueFrom: name})
	f("-m /m", corev1.EnvVar{Name: "LLAMA_ARG_EMBEDDINGS", Value: "0"})
}

// What a refusal says is an annotation, a warning and a line in the log.
func TestRefusalsHoldNothingOfACommandButItsProgram(t *testing.T) {
	f := func(want string, command ...string) {
		t.Helper()
		pod := testPod(t, func(p *corev1.Pod) {
			annotate(p, "container", "llama")
			server(p).Command, server(p).Args = command, nil
		})
		_, o := decide(t, newInjector(t), pod)
		if o.refusal == nil || o.refusal.Kind != kindCommand || !strings.Contains(o.status, want) || strings.Contains(o.status, "s3cret") {
			t.Errorf("%q: %s, want %q and no key", command, o.status, want)
		}
	}
	f("(/bin/sh …)", "/bin/sh", "-c", "llama-server --api-key s3cret")
	f("(env …)", "env", "LLAMA_API_KEY=s3cret", "llama-server")
	f("runs /start.sh …, which", "/start.sh", "--api-key", "s3cret")
	f("runs /start.sh, which", "/start.sh")
	f("runs llama-server …, which", "llama-server --api-key s3cret")
	f("runs LLAMA_API_KEY …, which", "LLAMA_API_KEY=s3cret llama-server")
	f("(tini …)", "tini", "--", "--api-key=s3cret")
	f("runs /"+strings.Repeat("x", 79)+" …, which", "/"+strings.Repeat("x", 300_000))
}
