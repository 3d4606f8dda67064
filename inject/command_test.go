package inject

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

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
