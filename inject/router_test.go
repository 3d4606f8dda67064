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

// bareServer is llama.cpp's own image.
const bareServer = "ghcr.io/ggml-org/llama.cpp:server"
