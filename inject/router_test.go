package inject

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

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
	for _, words := range []string{"-m /m", "-hf a/b", "--hf_repo a/b", "-dr gemma3", "--gpt-oss-20b-default", "--port $(PORT)", "-m /m --models-dir /models"} {
		f(func(c *corev1.Container) {
			c.Args, c.Env = strings.Fields(words), []corev1.EnvVar{{Name: "PORT", Value: "8080"}}
		})
	}
	f(func(c *corev1.Container) { c.Env = []corev1.EnvVar{{Name: "LLAMA_ARG_HF_REPO", Value: "a/b"}} })
	f(func(c *corev1.Container) { c.EnvFrom = []corev1.EnvFromSource{{Prefix: "LLAMA_ARG_"}} })
	f(func(c *corev1.Container) { c.Image = "mine/llama.cpp:server" })
}

// What llama.cpp's configuration files say is not seen, so a mount that may hold one may name
// a model.
func TestAConfigurationFileMayNameTheModel(t *testing.T) {
	f := func(want bool, mount string, env ...corev1.EnvVar) {
		t.Helper()
		_, o := decide(t, newInjector(t), testPod(t, func(p *corev1.Pod) {
			server(p).Image, server(p).Args, server(p).Env = bareServer, nil, env
			server(p).VolumeMounts = append(server(p).VolumeMounts, corev1.VolumeMount{Name: "models", MountPath: mount})
		}))
		if o.done != want {
			t.Errorf("with a mount at %s: injected: %v, want %v: %s", mount, o.done, want, o.status)
		}
	}
	f(true, "/etc/llama.cpp")
	f(true, "/etc/llama.cpp/")
	f(true, "/etc/llama.cpp/config.ini")
	f(true, "/root/.config/llama.cpp/config.ini")
	f(true, "/home/me/.config/llama.cpp")
	f(true, "/root/.config")
	f(true, "/settings", corev1.EnvVar{Name: "XDG_CONFIG_HOME", Value: "/settings"})
	f(false, "/settings")
	f(false, "/etc/llama.cpp/presets.ini")
	f(false, "/root/.cache/llama.cpp")
}

// bareServer is llama.cpp's own image.
const bareServer = "ghcr.io/ggml-org/llama.cpp:server"
