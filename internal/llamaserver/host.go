package llamaserver

import (
	"net"
	"slices"
	"strings"

	"github.com/semsharekv/semsharekv/configs"
)

// OneAddress is the host on which a sidecar, which has one address, stands in for a server
// that listens on hosts, which commas separate: all of them ("") if one of several means
// that, and the first if all are loopback. ok is false if no one host is as much, and no
// more, than the server was to have.
func OneAddress(hosts string) (host string, ok bool) {
	all := strings.Split(hosts, ",")
	for i := range all {
		all[i] = strings.Trim(strings.TrimSpace(all[i]), "[]")
	}
	switch {
	case len(all) == 1:
		return all[0], true
	case slices.ContainsFunc(all, isUnspecified):
		return "", true
	case !slices.ContainsFunc(all, func(h string) bool { return !configs.IsLoopback(h) }):
		return all[0], true
	}
	return "", false
}

func isUnspecified(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsUnspecified()
}
