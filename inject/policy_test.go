package inject

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// The MutatingAdmissionPolicy makes the same of a plain pod as the webhook, on an
// API server that has no webhook.
func TestThePolicyDoesWhatTheWebhookDoes(t *testing.T) {
	c := startCluster(t)
	policy, binding := &admissionregistrationv1.MutatingAdmissionPolicy{}, &admissionregistrationv1.MutatingAdmissionPolicyBinding{}
	for file, into := range map[string]client.Object{"policy.yaml": policy, "binding.yaml": binding} {
		text, err := os.ReadFile("../docker/kubernetes/policy/" + file)
		mustDo(t, err)
		mustDo(t, yaml.UnmarshalStrict(text, into))
	}
	for i := range policy.Spec.Variables {
		if v := &policy.Spec.Variables[i]; v.Name == "image" {
			v.Expression = "'semsharekv:test'"
		}
	}
	fail := admissionregistrationv1.Fail
	policy.Spec.FailurePolicy = &fail // a fault of the policy is to be seen here
	c.create(t, policy, binding)
	c.namespace(t, "policy", nil)
	c.namespace(t, "all", map[string]string{Prefix + "inject": "enabled"})
	c.namespace(t, "restricted", map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	for end := time.Now().Add(time.Minute); status(c.pod(t, "policy", testPod(t, nil))) == ""; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the policy does nothing")
		}
	}

	number := func(n int64) *int64 { return &n }
	yes, no := true, false
	same := func(namespace string, edit func(p *corev1.Pod)) {
		t.Helper()
		got := c.pod(t, namespace, testPod(t, edit))
		after, o := decide(t, newInjector(t), testPod(t, edit))
		if !o.done {
			t.Fatalf("the webhook would not inject: %s", o.status)
		}
		// Through the API server with its defaults; the policy leaves it alone.
		want := c.pod(t, namespace, after)
		if status(got) != status(want) {
			t.Errorf("status\n%s, want\n%s", status(got), status(want))
		}
		if !equality.Semantic.DeepEqual(got.Spec, want.Spec) {
			t.Errorf("the policy made\n%s\nthe webhook\n%s", text(t, got.Spec), text(t, want.Spec))
		}
	}
	same("policy", nil)
	same("policy", func(p *corev1.Pod) {
		server(p).Args = []string{"--model", "/nowhere/m", "--port", "9000", "--host", "::"}
		server(p).Ports, server(p).Resources = nil, corev1.ResourceRequirements{}
	})
	same("policy", func(p *corev1.Pod) {
		server(p).Args = nil
		server(p).VolumeMounts, p.Spec.Volumes, server(p).ReadinessProbe = nil, nil, nil
		server(p).Ports = []corev1.ContainerPort{{ContainerPort: 9100}}
	})
	same("policy", func(p *corev1.Pod) {
		server(p).Command = []string{"/app/llama-server"}
		server(p).Image = "mine:1"
		server(p).Env = []corev1.EnvVar{{Name: "LLAMA_ARG_PORT", Value: "9200"}, {Name: "LLAMA_ARG_CACHE_IDLE_SLOTS", Value: "1"}}
		server(p).Args = []string{"-m", "/models/m.gguf"}
		server(p).SecurityContext = &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
		p.Spec.InitContainers = []corev1.Container{{Name: "fetch", Image: "fetch:1"}}
	})
	for _, command := range [][]string{{"/app/llama"}, {"llama", "server"}} {
		same("policy", func(p *corev1.Pod) {
			server(p).Image, server(p).Command = bareServer, command
			server(p).Args = append([]string{"llama", "serve"}[len(command):], "-hf", "a/b")
		})
	}
	same("policy", func(p *corev1.Pod) {
		server(p).SecurityContext = &corev1.SecurityContext{RunAsUser: number(2000), RunAsGroup: number(3)}
	})
	// Where it listens.
	for _, image := range []string{"llama.cpp:server", "me/llama-server:1"} {
		hidden := func(more func(p *corev1.Pod)) func(p *corev1.Pod) {
			return func(p *corev1.Pod) {
				server(p).Image, server(p).Ports, server(p).ReadinessProbe = image, nil, nil
				more(p)
			}
		}
		host := func(v string) func(p *corev1.Pod) {
			return hidden(func(p *corev1.Pod) { server(p).Args = []string{"-m", "/m", "--host", v} })
		}
		probe := func(h corev1.ProbeHandler) func(p *corev1.Pod) {
			return hidden(func(p *corev1.Pod) {
				server(p).Args = []string{"-m", "/m"}
				server(p).LivenessProbe = &corev1.Probe{ProbeHandler: h}
			})
		}
		same("policy", probe(corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt(8080)}}))
		same("policy", probe(corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(8080)}}))
		same("policy", probe(corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt(8080), Host: "10.0.0.1"}}))
		same("policy", probe(corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(9090)}}))
		same("policy", host("127.0.0.1,::1"))
		same("policy", host("::1, localhost"))
		same("policy", host("10.0.0.1,[::]"))
		same("policy", host("10.0.0.1"))
	}
	same("all", func(p *corev1.Pod) { p.Annotations = nil })
	same("restricted", func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: &yes, RunAsUser: number(1000), RunAsGroup: number(1001),
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
		server(p).SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: &no,
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
	})
	wantUntouched(t, c.pod(t, "all", testPod(t, func(p *corev1.Pod) { annotate(p, "inject", "false") })))
	wantUntouched(t, c.pod(t, "policy", plain(t)))

	// Whatever the webhook refuses the policy refuses too, in its own words.
	for _, r := range slices.Concat(refusals, variableRefusals) {
		pod := c.pod(t, "policy", testPod(t, r.edit))
		if s := status(pod); !strings.HasPrefix(s, "not injected; reason=") {
			t.Errorf("%s: status %q", r.says, s)
		}
	}
}
