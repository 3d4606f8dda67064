package inject

import (
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/semsharekv/semsharekv/internal/llamaserver"
)

// Hosts that the sidecar listens on.
const (
	loopback      = "127.0.0.1"
	allInterfaces = ""
)

// openImage are the images that have LLAMA_ARG_HOST=0.0.0.0 in their environment, which
// no pod shows: llama.cpp's own of the server, and no other of llama.cpp's.
var openImage = regexp.MustCompile(`(^|/)llama\.cpp:server[^/]*$`)

// clientHost is the address that clients use: where the server would listen, and never
// more, since a server that only its own pod can reach may be open to all who do.
func (p *planner) clientHost() (string, error) {
	v, given, known := p.cmd.value(llamaserver.Host)
	switch {
	case strings.Contains(v, ".sock") || strings.Contains(v, "/"):
		return "", refuse(kindServer, "the server listens on a Unix socket (--host %s); want an address", v)
	case p.s.ListenHost != "":
		return literal(p.s.ListenHost), nil
	case given && (!known || v == "" || strings.Contains(v, "$(")):
		return "", refuse(kindServer, "the server's --host %q cannot be told; want annotation %slisten-host", v, Prefix)
	case given:
		host, ok := llamaserver.OneAddress(v)
		if !ok {
			return "", refuse(kindServer, "the server listens on %s, and the sidecar on one address; want annotation %slisten-host", v, Prefix)
		}
		return literal(host), nil
	case openImage.MatchString(p.c.Image) || p.seenFromOutside():
		return allInterfaces, nil
	}
	p.note("listen-host=llama-server's default")
	return loopback, nil
}

// literal is the loopback address for its name, and any other host as it is: nothing is
// looked up in the sidecar's image.
func literal(host string) string {
	if host == "localhost" {
		return loopback
	}
	return host
}

// seenFromOutside reports whether the pod says that others reach the server's port: its
// container declares it, or has the kubelet probe it. A probe that names a port names a
// declared one.
func (p *planner) seenFromOutside() bool {
	if slices.Contains(p.serverPorts(), p.listen) {
		return true
	}
	for _, probe := range []*corev1.Probe{p.c.StartupProbe, p.c.ReadinessProbe, p.c.LivenessProbe} {
		if probe == nil {
			continue
		}
		var at intstr.IntOrString
		if get := probe.HTTPGet; get != nil && get.Host == "" {
			at = get.Port
		} else if tcp := probe.TCPSocket; tcp != nil && tcp.Host == "" {
			at = tcp.Port
		}
		if at.IntValue() == p.listen {
			return true
		}
	}
	return false
}
