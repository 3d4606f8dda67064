package inject

import (
	"cmp"
	"net"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/semsharekv/semsharekv/internal/llamaserver"
)

// Usual ports.
const (
	serverPort  = 8080 // llama-server's own
	backendPort = 18080
	adminPort   = 8090
)

// arrangePorts gives the server's port to the sidecar and moves the server to
// another one on the loopback address. The declaration of the port stays with
// the server's container: Services, probes, NetworkPolicies and host ports find
// it there by name, and a declaration does not say who listens.
func (p *planner) arrangePorts() error {
	var err error
	if p.listen, err = p.clientPort(); err != nil {
		return err
	}
	if p.listenHost, err = p.clientHost(); err != nil {
		return err
	}
	taken := p.declaredPorts()
	taken[p.listen] = true
	if p.backend, err = ownPort(taken, p.s.BackendPort, backendPort, "backend-port"); err != nil {
		return err
	}
	if p.admin, err = ownPort(taken, p.s.AdminPort, adminPort, "admin-port"); err != nil {
		return err
	}
	p.cmd.set(llamaserver.Host, loopback)
	p.cmd.set(llamaserver.Port, strconv.Itoa(p.backend))
	if on, known := p.onVertex(); on || !known {
		p.env = append(p.env, corev1.EnvVar{Name: llamaserver.VertexPort, Value: strconv.Itoa(p.backend)})
	}
	p.note("listen=%s", p.clientAddress())
	p.note("backend=%s:%d", loopback, p.backend)
	return nil
}

// ownPort is a port for one of ours, which becomes taken: the one that an annotation wants,
// else the first free one from the usual on.
func ownPort(taken map[int]bool, wanted, usual int, annotation string) (int, error) {
	if wanted != 0 && taken[wanted] {
		return 0, refuse(kindPort, "annotation %s%s: port %d is in use in the pod", Prefix, annotation, wanted)
	}
	own := cmp.Or(wanted, usual)
	for taken[own] {
		own++
	}
	taken[own] = true
	return own, nil
}

// clientAddress is where the sidecar listens for clients.
func (p *planner) clientAddress() string {
	return net.JoinHostPort(p.listenHost, strconv.Itoa(p.listen))
}

// declaredPorts are those of all the pod's containers.
func (p *planner) declaredPorts() map[int]bool {
	ports := map[int]bool{}
	for _, list := range [][]corev1.Container{p.pod.Spec.InitContainers, p.pod.Spec.Containers} {
		for i := range list {
			for _, port := range list[i].Ports {
				ports[int(port.ContainerPort)] = true
			}
		}
	}
	return ports
}

// clientPort is the port that clients use: the annotation's, the server's, or
// where neither is given the one that is declared.
func (p *planner) clientPort() (int, error) {
	if p.s.ListenPort != 0 {
		return p.s.ListenPort, nil
	}
	on, known := p.onVertex()
	if !known {
		return 0, refuse(kindPort, "whether the server's %s is %s, which changes its port, cannot be told; want annotation %slisten-port", llamaserver.VertexMode, llamaserver.VertexPrediction, Prefix)
	}
	if on {
		return p.vertexPort()
	}
	v, given, known := p.cmd.value(llamaserver.Port)
	if given {
		var n int
		if !known || port(&n, v) != nil {
			return 0, refuse(kindPort, "the server's port %q cannot be told; want annotation %slisten-port", v, Prefix)
		}
		return n, nil
	}
	switch declared := p.serverPorts(); {
	case len(declared) == 0 || slices.Contains(declared, serverPort):
		return serverPort, nil
	case len(declared) == 1:
		return declared[0], nil
	}
	return 0, refuse(kindPort, "the server's port is not given and container %q declares several; want annotation %slisten-port", p.c.Name, Prefix)
}

// onVertex tells whether the server listens on Vertex AI's port, whatever else it is given.
func (p *planner) onVertex() (on, known bool) {
	mode, _, known := p.cmd.env.get(llamaserver.VertexMode)
	return mode == llamaserver.VertexPrediction, known
}

func (p *planner) vertexPort() (n int, err error) {
	v, _, known := p.cmd.env.get(llamaserver.VertexPort)
	if known && v == "" {
		return serverPort, nil
	}
	if !known || port(&n, v) != nil {
		return 0, refuse(kindPort, "the server's port, %s %q, cannot be told; want annotation %slisten-port", llamaserver.VertexPort, v, Prefix)
	}
	return n, nil
}

// serverPorts are the TCP ports that the server's container declares.
func (p *planner) serverPorts() (ports []int) {
	for _, port := range p.c.Ports {
		if port.Protocol == corev1.ProtocolTCP || port.Protocol == "" {
			ports = append(ports, int(port.ContainerPort))
		}
	}
	return ports
}

// checkPrivilege refuses a port that a server which is root may listen on and the
// sidecar, which has no capabilities, may not. Another server needs the node's leave
// for such a port already.
func (p *planner) checkPrivilege() error {
	uid, _ := effective(p.pod, p.c)
	root := uid == nil && !runsAsNonRoot(p.pod, p.c) || uid != nil && *uid == 0
	if root && p.listen < firstFreePort(p.pod) && hasCapability(p.c, "NET_BIND_SERVICE") {
		return refuse(kindPort, "the server listens on port %d as root, and the sidecar, which has no capabilities, may not; want a port of 1024 or more, or the sysctl %s in the pod's securityContext", p.listen, portSysctl)
	}
	return nil
}

// portSysctl is the first port that needs no capability.
const portSysctl = "net.ipv4.ip_unprivileged_port_start"

// firstFreePort is the value of portSysctl in the pod, as far as the pod says.
func firstFreePort(pod *corev1.Pod) int {
	if sc := pod.Spec.SecurityContext; sc != nil {
		for _, s := range sc.Sysctls {
			if n, err := strconv.Atoi(s.Value); s.Name == portSysctl && err == nil {
				return n
			}
		}
	}
	return 1024
}
