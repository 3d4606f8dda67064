package inject

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/semsharekv/semsharekv/internal/llamaserver"
)

// arrangeKey hands the server's API key to the sidecar, for its own requests.
func (p *planner) arrangeKey() error {
	v, given, known := p.cmd.value(llamaserver.APIKey)
	if !given {
		return nil
	}
	variable := llamaserver.APIKey.Env
	for word := range llamaserver.APIKey.Values(p.cmd.options()) {
		variable = ""
		if strings.HasPrefix(*word, "$(") && strings.HasSuffix(*word, ")") {
			variable = (*word)[2 : len(*word)-1]
		}
	}
	key := corev1.EnvVar{Name: keyVariable, Value: strings.ReplaceAll(v, "$", "$$")}
	for _, e := range p.c.Env {
		if e.Name == variable && e.ValueFrom != nil {
			key, known = corev1.EnvVar{Name: keyVariable, ValueFrom: e.ValueFrom}, true
		}
	}
	if !known {
		return refuse(kindServer, "the server's --api-key cannot be told; want LLAMA_API_KEY from a Secret")
	}
	if optional(key.ValueFrom) {
		return refuse(kindServer, "the server's API key is optional, and the sidecar does not start without; want it from a Secret that must be there")
	}
	p.sidecarEnv = append(p.sidecarEnv, key)
	return nil
}

// optional tells whether a variable may be left unset.
func optional(from *corev1.EnvVarSource) bool {
	if from == nil {
		return false
	}
	yes := func(b *bool) bool { return b != nil && *b }
	return from.SecretKeyRef != nil && yes(from.SecretKeyRef.Optional) || from.ConfigMapKeyRef != nil && yes(from.ConfigMapKeyRef.Optional)
}
