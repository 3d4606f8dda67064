package inject

import (
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// apply makes the change in a pod's JSON. It touches nothing else, so that fields
// that this program's version of the API does not know stay as they are.
func (c *change) apply(raw []byte) ([]byte, error) {
	var pod map[string]any
	if err := json.Unmarshal(raw, &pod); err != nil {
		return nil, err
	}
	e := editor{}
	spec := e.object(pod, "spec")
	server, err := containerAt(spec, c.server)
	if err != nil {
		return nil, err
	}
	if len(c.command) > 0 {
		server["command"] = c.command
	}
	server["args"] = c.args
	e.setEnv(server, c.env)
	e.set(server, "resources", &c.resources)
	e.extend(server, "volumeMounts", asAny(c.mounts))
	e.extend(spec, "volumes", asAny(c.volumes))
	e.extend(spec, "initContainers", asAny(c.initContainers))
	if c.pullSecret != "" {
		e.extend(spec, "imagePullSecrets", []any{&corev1.LocalObjectReference{Name: c.pullSecret}})
	}
	if c.podResources != nil {
		e.set(spec, "resources", c.podResources)
	}
	e.annotate(pod, c.status)
	if e.err != nil {
		return nil, e.err
	}
	return json.Marshal(pod)
}

// withStatus is the pod's JSON with nothing but our annotation changed.
func withStatus(raw []byte, status string) ([]byte, error) {
	var pod map[string]any
	if err := json.Unmarshal(raw, &pod); err != nil {
		return nil, err
	}
	e := editor{}
	e.annotate(pod, status)
	if e.err != nil {
		return nil, e.err
	}
	return json.Marshal(pod)
}

func containerAt(spec map[string]any, i int) (map[string]any, error) {
	list, _ := spec["containers"].([]any)
	if i >= len(list) {
		return nil, fmt.Errorf("the pod has %d containers, want at least %d", len(list), i+1)
	}
	server, ok := list[i].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("container %d of the pod is no object", i)
	}
	return server, nil
}

// editor changes decoded JSON and keeps the first error.
type editor struct{ err error }

// object is the field as an object, made where it is missing.
func (e *editor) object(parent map[string]any, field string) map[string]any {
	switch o := parent[field].(type) {
	case map[string]any:
		return o
	case nil:
	default:
		e.fail(fmt.Errorf("the pod's %s is no object", field))
	}
	o := map[string]any{}
	parent[field] = o
	return o
}

func (e *editor) list(parent map[string]any, field string) []any {
	list, ok := parent[field].([]any)
	if !ok && parent[field] != nil {
		e.fail(fmt.Errorf("the pod's %s is no list", field))
	}
	return list
}

func (e *editor) set(parent map[string]any, field string, v any) {
	o, err := runtime.DefaultUnstructuredConverter.ToUnstructured(v)
	if err != nil {
		// Only pointers to structs can be converted.
		e.fail(err)
		return
	}
	if len(o) > 0 {
		parent[field] = o
	}
}

func (e *editor) extend(parent map[string]any, field string, more []any) {
	if len(more) == 0 {
		return
	}
	list := e.list(parent, field)
	for _, v := range more {
		o, err := runtime.DefaultUnstructuredConverter.ToUnstructured(v)
		if err != nil {
			e.fail(err)
			return
		}
		list = append(list, o)
	}
	parent[field] = list
}

// setEnv puts each variable in the place of the last one of its name, which is
// the one in force, or at the end.
func (e *editor) setEnv(container map[string]any, vars []corev1.EnvVar) {
	list := e.list(container, "env")
	for _, v := range vars {
		at := -1
		for i := range list {
			if o, ok := list[i].(map[string]any); ok && o["name"] == v.Name {
				at = i
			}
		}
		o := map[string]any{"name": v.Name, "value": v.Value}
		if at >= 0 {
			list = slices.Clone(list)
			list[at] = o
		} else {
			list = append(list, o)
		}
	}
	if len(list) > 0 {
		container["env"] = list
	}
}

func (e *editor) annotate(pod map[string]any, status string) {
	e.object(e.object(pod, "metadata"), "annotations")[annotationStatus] = status
}

func (e *editor) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

func asAny[T any](list []T) []any {
	out := make([]any, len(list))
	for i := range list {
		out[i] = &list[i]
	}
	return out
}
