package inject

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

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
