package inject

import (
	"regexp"

	corev1 "k8s.io/api/core/v1"
)

// environment holds the variables of a container as far as the pod tells them;
// nil stands for one that comes from a Secret, a ConfigMap or a field.
type environment map[string]*string

func newEnvironment(vars []corev1.EnvVar) environment {
	e := environment{}
	for _, v := range vars {
		if v.ValueFrom != nil {
			e[v.Name] = nil
			continue
		}
		// A variable sees those before it, as in Kubernetes.
		if value, known := e.expand(v.Value); known {
			e[v.Name] = &value
		} else {
			e[v.Name] = nil
		}
	}
	return e
}

func (e environment) get(name string) (v string, given, known bool) {
	p, given := e[name]
	if p == nil {
		return "", given, !given
	}
	return *p, true, true
}

var reference = regexp.MustCompile(`\$\$|\$\([^()]*\)`)

// expand replaces $(NAME) as Kubernetes does. known is false where a variable's
// value is not known. A name that there is no variable for stays as it is.
func (e environment) expand(s string) (out string, known bool) {
	known = true
	out = reference.ReplaceAllStringFunc(s, func(m string) string {
		if m == "$$" {
			return "$"
		}
		p, given := e[m[2:len(m)-1]]
		switch {
		case !given:
			return m
		case p == nil:
			known = false
			return ""
		}
		return *p
	})
	return out, known
}
