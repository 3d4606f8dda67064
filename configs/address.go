package configs

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// CheckAddress says what is wrong with an address to listen on.
func CheckAddress(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if _, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || strings.ContainsAny(host, " /") {
		return fmt.Errorf("%q is not an address; want HOST:PORT as 127.0.0.1:8080", addr)
	}
	return nil
}

// CheckBaseURL says what is wrong with a server's base URL.
func CheckBaseURL(text string) error {
	switch u, err := url.Parse(text); {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%q is not a base URL; want one like http://127.0.0.1:8081", redact(text))
	case u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("%q has a query or fragment; want a base URL without", redact(text))
	case strings.HasSuffix(strings.TrimRight(u.Path, "/"), "/v1"): // as clients of OpenAI's want it
		u.Path = strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/v1")
		return fmt.Errorf("%q ends in /v1, which is a part of requests' paths; want it without, as %s", redact(text), u.Redacted())
	}
	return nil
}

// apart checks that clients, the admin side and the backend have an address each: a
// sidecar that is its own backend forwards every request to itself, for ever.
func (v *validator) apart(c *Config) {
	if sameAddress(c.Listen, c.Admin) {
		v.fail("admin", "%q is where clients are listened to (listen is %q); want another port, for it must not be open to clients", c.Admin, c.Listen)
	}
	backend := dialled(c.Backend.URL)
	if sameAddress(c.Listen, backend) {
		v.fail("backend.url", "%q is the sidecar's own address (listen is %q); want the llama-server's, or another listen", redact(c.Backend.URL), c.Listen)
	}
	if sameAddress(c.Admin, backend) {
		v.fail("backend.url", "%q is the sidecar's own address (admin is %q); want the llama-server's, or another admin", redact(c.Backend.URL), c.Admin)
	}
}

// dialled is the HOST:PORT that a base URL leads to; "" where it is none.
func dialled(base string) string {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" {
		return ""
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// sameAddress tells whether two addresses meet on this machine. All of its own hosts
// count as one; names are not looked up, and port 0 is another one each time.
func sameAddress(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	return strings.EqualFold(hostA, hostB) || here(hostA) && here(hostB)
}

// here tells whether a host is this machine whatever the network: loopback, or none
// in particular.
func here(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || IsLoopback(host) || ip != nil && ip.IsUnspecified()
}

// IsLoopback reports whether a host, as it stands in an address, can be reached from this
// machine only. Of names localhost alone counts; none is looked up.
func IsLoopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// redact hides the password of a URL that is shown. Where none is found, an @ may
// still stand behind one.
func redact(s string) string {
	u, err := url.Parse(s)
	switch {
	case err == nil && u.User != nil:
		return u.Redacted()
	case strings.Contains(s, "@"):
		return "(unreadable URL)"
	}
	return s
}
