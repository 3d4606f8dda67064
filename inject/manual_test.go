package inject

import (
	"flag"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the pods into docs/kubernetes.md")

const (
	podsBegin = "<!-- pods: made by `go test ./inject -run Pods -update` -->\n"
	podsEnd   = "<!-- end of pods -->\n"
)

// The manual shows a pod before and after, as the injector has them today.
func TestTheManualShowsThePods(t *testing.T) {
	const file = "../docs/kubernetes.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), podsBegin)
	shown, after, ok2 := strings.Cut(rest, podsEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no lines %q and %q", file, podsBegin, podsEnd)
	}
	want := manualPods(t)
	switch {
	case shown == want:
	case *update:
		if err := os.WriteFile(file, []byte(before+podsBegin+want+podsEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("the manual's pods are not what the injector makes: run go test ./inject -run Pods -update\nwant:\n%s", want)
	}
}

func manualPods(t *testing.T) string {
	source, err := os.ReadFile("testdata/pod.yaml")
	if err != nil {
		t.Fatal(err)
	}
	in := newInjector(t)
	in.settings.Image = "semsharekv:1.0"
	pod, o := decide(t, in, testPod(t, nil))
	if o.refusal != nil {
		t.Fatalf("the manual's pod is refused: %v", o.refusal)
	}
	return "\n```yaml\n" + string(source) + "```\n\nbecomes\n\n```yaml\n" + podYAML(t, pod) + "```\n\n"
}

// podYAML leaves out what the API server fills in.
func podYAML(t *testing.T, pod *corev1.Pod) string {
	b, err := yaml.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		if s := strings.TrimSpace(line); s != "status: {}" && s != "creationTimestamp: null" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}
