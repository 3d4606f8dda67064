package inject

import (
	"net"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
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
	v, given, known := p.cmd.value(optHost)
	switch {
	case strings.Contains(v, ".sock") || strings.Contains(v, "/"):
		return "", refuse(kindServer, "the server listens on a Unix socket (--host %s); want an address", v)
	case p.s.ListenHost != "":
		return bracketed(p.s.ListenHost), nil
	case given && (!known || v == "" || strings.Contains(v, "$(")):
		return "", refuse(kindServer, "the server's --host %q cannot be told; want annotation %slisten-host", v, Prefix)
	case given:
		return listed(v)
	case openImage.MatchString(p.c.Image) || p.seenFromOutside():
		return allInterfaces, nil
	}
	p.note("listen-host=llama-server's default")
	return loopback, nil
}

// listed is the one address for a list of them.
func listed(v string) (string, error) {
	hosts := strings.Split(v, ",")
	for i := range hosts {
		hosts[i] = strings.Trim(strings.TrimSpace(hosts[i]), "[]")
	}
	isAny := func(h string) bool { ip := net.ParseIP(h); return ip != nil && ip.IsUnspecified() }
	switch {
	case len(hosts) == 1:
		return bracketed(hosts[0]), nil
	case slices.ContainsFunc(hosts, isAny):
		return allInterfaces, nil
	case !slices.ContainsFunc(hosts, func(h string) bool { return !isLoopback(h) }):
		return bracketed(hosts[0]), nil
	}
	return "", refuse(kindServer, "the server listens on %s, and the sidecar on one address; want annotation %slisten-host", v, Prefix)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// bracketed is a host as it stands before a port.
func bracketed(host string) string {
	switch {
	case host == "localhost":
		return loopback
	case strings.Contains(host, ":"):
		return "[" + host + "]"
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
