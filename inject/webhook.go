package inject

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/rs/zerolog"
	"gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// Path is where the API server sends pods.
const Path = "/mutate"

// injector answers the API server about pods. Every answer allows the pod.
type injector struct {
	settings Settings
	metrics  *metrics
	log      zerolog.Logger
	// unfit says why the cluster cannot run native sidecars; empty where it can.
	unfit string
}

// Handle implements admission.Handler.
func (in *injector) Handle(_ context.Context, r admission.Request) (answer admission.Response) {
	defer func() {
		if v := recover(); v != nil {
			answer = in.failed(r, fmt.Errorf("panic: %v", v))
		}
	}()
	if r.Operation != admissionv1.Create || r.Resource.Resource != "pods" || r.SubResource != "" {
		return admission.Allowed("not the creation of a pod")
	}
	out, outcome, err := in.decide(r.Object.Raw)
	if err != nil {
		return in.failed(r, err)
	}
	in.count(r, outcome)
	if out == nil {
		return admission.Allowed("")
	}
	// The pod is compared as it was sent: indexes and parents are those of the
	// API server.
	patches, err := jsonpatch.CreatePatch(r.Object.Raw, out)
	if err != nil {
		return in.failed(r, err)
	}
	answer = admission.Patched("", patches...)
	if outcome.refusal != nil && outcome.asked {
		answer.Warnings = []string{"semsharekv: " + statusOf(outcome.refusal)}
	}
	return answer
}

// outcome is what was decided about one pod.
type outcome struct {
	asked   bool     // by the pod itself, not by its namespace alone
	refusal *Refusal // nil: injected, or nothing to do
	done    bool     // injected now
	status  string
}

// decide returns the pod's new JSON, nil where nothing is to be changed.
func (in *injector) decide(raw []byte) ([]byte, outcome, error) {
	var pod corev1.Pod
	if err := json.Unmarshal(raw, &pod); err != nil {
		return nil, outcome{}, fmt.Errorf("cannot read the pod: %w", err)
	}
	wish, asked := pod.Annotations[annotationInject]
	o := outcome{asked: asked}
	if wish == "false" || injected(&pod) {
		return nil, o, nil
	}
	change, err := in.plan(&pod, wish, asked)
	if errors.As(err, &o.refusal) {
		o.status = statusOf(o.refusal)
		out, err := withStatus(raw, o.status)
		return out, o, err
	}
	if err != nil {
		return nil, o, err
	}
	o.done, o.status = true, change.status
	out, err := change.apply(raw)
	return out, o, err
}

func (in *injector) plan(pod *corev1.Pod, wish string, asked bool) (*change, error) {
	if asked && wish != "true" {
		return nil, refuse(kindAnnotation, "annotation %s is %q; want true or false", annotationInject, wish)
	}
	if in.unfit != "" {
		return nil, refuse(kindKubernetes, "%s", in.unfit)
	}
	return plan(pod, in.settings)
}

// injected reports whether the sidecar is in the pod already: the API server
// asks again after other webhooks changed it.
func injected(pod *corev1.Pod) bool {
	if !strings.HasPrefix(pod.Annotations[annotationStatus], "injected;") {
		return false
	}
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == sidecarName {
			return true
		}
	}
	return false
}

func statusOf(r *Refusal) string { return "not injected; reason=" + r.Text }

// failed lets the pod pass as it is.
func (in *injector) failed(r admission.Request, err error) admission.Response {
	in.metrics.pods.WithLabelValues("failed", "").Inc()
	in.log.Error().Err(err).Str("namespace", r.Namespace).Str("pod", podName(r)).Msg("the pod passes as it is")
	return admission.Allowed("").WithWarnings("semsharekv: not injected: the webhook failed on this pod")
}

func (in *injector) count(r admission.Request, o outcome) {
	// A namespace's other pods are no failures.
	level, result, kind := zerolog.InfoLevel, "unchanged", ""
	switch {
	case o.done:
		result = "injected"
	case o.refusal != nil && !o.asked && o.refusal.Kind == kindContainer:
		level, result, kind = zerolog.DebugLevel, "skipped", o.refusal.Kind
	case o.refusal != nil:
		level, result, kind = zerolog.WarnLevel, "refused", o.refusal.Kind
	default:
		level = zerolog.DebugLevel
	}
	in.metrics.pods.WithLabelValues(result, kind).Inc()
	in.log.WithLevel(level).Str("namespace", r.Namespace).Str("pod", podName(r)).Str("result", result).Msg(o.status)
}

// podName is the pod's name, or the beginning that its name will have.
func podName(r admission.Request) string {
	if r.Name != "" {
		return r.Name
	}
	var meta struct {
		Metadata struct {
			GenerateName string `json:"generateName"`
		} `json:"metadata"`
	}
	_ = json.Unmarshal(r.Object.Raw, &meta)
	return meta.Metadata.GenerateName
}
