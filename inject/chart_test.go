package inject

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/semsharekv/semsharekv/internal/lab"
)

// base reads the objects of the kustomize base, the namespace first. docker/kubernetes/check
// has it that they are what the chart renders.
func base(t testing.TB) []*unstructured.Unstructured {
	t.Helper()
	var all []*unstructured.Unstructured
	for _, name := range []string{"namespace.yaml", "webhook.yaml"} {
		text, err := os.ReadFile(filepath.Join("..", "docker", "kubernetes", "base", name))
		if err != nil {
			t.Fatal(err)
		}
		d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
		for {
			o := &unstructured.Unstructured{}
			err := d.Decode(&o.Object)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if len(o.Object) > 0 {
				all = append(all, o)
			}
		}
	}
	return all
}

func TestTheOldestKubernetesIsTheSameEverywhere(t *testing.T) {
	f := func(file, want string) {
		t.Helper()
		if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: error %v, want %q in it", file, err, want)
		}
	}
	f("../docker/kubernetes/chart/Chart.yaml", fmt.Sprintf(`kubeVersion: ">= 1.%d.0-0"`, oldestMinor))
	for _, page := range []string{"../README.md", "../docs/kubernetes.md"} {
		f(page, fmt.Sprintf("Kubernetes 1.%d or newer", oldestMinor))
	}
}

// accountToken is one that the API server issues for the webhook's ServiceAccount.
func (c *cluster) accountToken(t testing.TB, key types.NamespacedName) string {
	t.Helper()
	account := &corev1.ServiceAccount{}
	if err := c.client.Get(ctxOf(t), key, account); err != nil {
		t.Fatal(err)
	}
	request := &authenticationv1.TokenRequest{}
	if err := c.client.SubResource("token").Create(ctxOf(t), account, request); err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

// The manifests are taken whole by a real API server, which knows every field of
// them; the webhook then works with the rights that they give its account, and
// these are no more than it needs.
func TestTheManifestsInstallTheWebhook(t *testing.T) {
	c := startCluster(t)
	strict := client.WithFieldValidation(c.client, "Strict")
	for _, o := range base(t) {
		if err := strict.Create(ctxOf(t), o); err != nil {
			t.Fatalf("%s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
	name := types.NamespacedName{Namespace: "semsharekv", Name: "semsharekv-inject"}

	deployment := &appsv1.Deployment{}
	if err := c.client.Get(ctxOf(t), name, deployment); err != nil {
		t.Fatal(err)
	}
	// A controller would make this pod; the namespace is a restricted one.
	pod := &corev1.Pod{ObjectMeta: *deployment.Spec.Template.ObjectMeta.DeepCopy(), Spec: *deployment.Spec.Template.Spec.DeepCopy()}
	pod.Namespace, pod.GenerateName = name.Namespace, name.Name+"-"
	c.create(t, pod)

	// The API server reaches no Service of a cluster without nodes.
	var err error
	if c.port, err = lab.FreePort(); err != nil {
		t.Fatal(err)
	}
	admin, err := lab.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	c.admin = fmt.Sprintf("127.0.0.1:%d", admin)
	hook := &admissionregistrationv1.MutatingWebhookConfiguration{}
	if err := c.client.Get(ctxOf(t), name, hook); err != nil {
		t.Fatal(err)
	}
	for i := range hook.Webhooks {
		url := fmt.Sprintf("https://localhost:%d%s", c.port, *hook.Webhooks[i].ClientConfig.Service.Path)
		hook.Webhooks[i].ClientConfig = admissionregistrationv1.WebhookClientConfig{URL: &url}
	}
	if err := c.client.Update(ctxOf(t), hook); err != nil {
		t.Fatal(err)
	}

	token := c.accountToken(t, name)
	o := c.options(t)
	o.Cluster, o.MissedEvery = c.config(token), 0
	for _, arg := range deployment.Spec.Template.Spec.Containers[0].Args {
		if in, ok := strings.CutPrefix(arg, "--cert-secret="+name.Namespace+"/"); ok {
			o.Secret.Name = in
		}
	}
	c.namespace(t, "asks", nil)
	c.startWith(t, o, "asks")
	wantInjected(t, c.pod(t, "asks", testPod(t, nil)))

	account, err := client.New(c.config(token), client.Options{Scheme: c.client.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	wantForbidden := func(what string, err error) {
		t.Helper()
		if !apierrors.IsForbidden(err) {
			t.Errorf("the webhook's account may %s: %v", what, err)
		}
	}
	wantForbidden("list pods", account.List(ctxOf(t), &corev1.PodList{}))
	wantForbidden("list secrets", account.List(ctxOf(t), &corev1.SecretList{}, client.InNamespace(name.Namespace)))
	wantForbidden("read another secret", account.Get(ctxOf(t), types.NamespacedName{Namespace: name.Namespace, Name: "other"}, &corev1.Secret{}))
	wantForbidden("read the other namespaces' secrets", account.Get(ctxOf(t), types.NamespacedName{Namespace: "asks", Name: o.Secret.Name}, &corev1.Secret{}))
	wantForbidden("list webhook configurations", account.List(ctxOf(t), &admissionregistrationv1.MutatingWebhookConfigurationList{}))
	wantForbidden("create pods", account.Create(ctxOf(t), testPod(t, func(p *corev1.Pod) { p.Namespace = "asks" })))
}
