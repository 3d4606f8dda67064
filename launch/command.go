package launch

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// llama-server's own defaults.
const (
	serverHost = "127.0.0.1"
	serverPort = "8080"
)

// Command is a llama-server's command line and environment.
type Command struct {
	Args []string // the program first
	Env  []string // as of os.Environ
}

// Place is where the sidecar stands and where the server went.
type Place struct {
	// Listen is the address that the user meant the server to have.
	Listen string
	// URL is the server's base URL.
	URL string
}

// Check refuses, by name, what cannot be run behind a sidecar.
func (c *Command) Check() error {
	if len(c.Args) == 0 {
		return errors.New("no command to start: write it behind --, as in: -- llama-server -m model.gguf")
	}
	if _, ok := optTLS.value(c.Args, c.Env); ok {
		return fmt.Errorf("%s: the sidecar speaks plain HTTP to clients and server; put TLS in front of it", optTLS.name)
	}
	if p, _ := optPrefix.value(c.Args, c.Env); p != "" {
		return fmt.Errorf("%s %s: the sidecar knows the server's paths without a prefix; put the prefix in front of it", optPrefix.name, p)
	}
	if h, _ := optHost.value(c.Args, c.Env); strings.HasSuffix(h, ".sock") {
		return fmt.Errorf("%s %s: the sidecar listens on TCP only", optHost.name, h)
	}
	return c.checkRouter()
}

// Find says whether there is a program to start.
func (c *Command) Find() error {
	_, err := exec.LookPath(c.Args[0])
	var fault *exec.Error
	if errors.As(err, &fault) {
		err = fault.Err // the name stands in ours
	}
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("cannot start %s: %w; want a program in it, or a path, as /opt/llama.cpp/llama-server", c.Args[0], err)
	}
	if err != nil {
		return fmt.Errorf("cannot start %s: %w", c.Args[0], err)
	}
	return nil
}

// SlotDir is the directory that the user gave for slots, or "".
func (c *Command) SlotDir() string {
	dir, _ := optSlotPath.value(c.Args, c.Env)
	return dir
}

// APIKey is a key that the server will accept, or "" where it asks for none.
func (c *Command) APIKey() (string, error) {
	if keys, ok := optKey.value(c.Args, c.Env); ok && keys != "" {
		first, _, _ := strings.Cut(keys, ",")
		return strings.TrimSpace(first), nil
	}
	file, ok := optKeyFile.value(c.Args, c.Env)
	if !ok {
		return "", nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("cannot read the server's %s: %w", optKeyFile.name, err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			return line, nil
		}
	}
	return "", fmt.Errorf("the server's %s %s holds no key", optKeyFile.name, file)
}

// secrets are the options, and the variables that env or a script may be given, whose
// values are not to be seen.
var secrets = []string{optKey.name, optKey.env, "--hf-token", "-hft", "HF_TOKEN"}

// shown is the command line as it may be logged: without keys and tokens.
func (c *Command) shown() []string {
	const withheld = "(withheld)"
	args := slices.Clone(c.Args)
	for i, arg := range c.Args {
		name, _, joined := strings.Cut(arg, "=")
		switch {
		case !slices.Contains(secrets, spelled(name)):
		case joined:
			args[i] = name + "=" + withheld
		case i+1 < len(args):
			args[i+1] = withheld
		}
	}
	return args
}

// Move gives the server a free port on the loopback address and returns where it
// went and which address is free for the sidecar now.
func (c *Command) Move() (Place, error) {
	host, ok := optHost.value(c.Args, c.Env)
	if !ok || host == "" {
		host = serverHost
	}
	port, ok := optPort.value(c.Args, c.Env)
	if !ok || port == "" {
		port = serverPort
	}
	free, err := freePort()
	if err != nil {
		return Place{}, err
	}
	c.Args, c.Env = optHost.set(c.Args, c.Env, serverHost)
	c.Args, c.Env = optPort.set(c.Args, c.Env, free)
	return Place{Listen: net.JoinHostPort(listenHost(host), port), URL: "http://" + net.JoinHostPort(serverHost, free)}, nil
}

// listenHost is where the sidecar listens instead of a server with these hosts, which
// commas separate: it has one address only, so it is all of them where one of the hosts
// means that, and else the first, never more than was asked for.
func listenHost(hosts string) string {
	first, _, several := strings.Cut(hosts, ",")
	all := func(h string) bool { return h == "0.0.0.0" || strings.Trim(h, "[]") == "::" }
	if several && slices.ContainsFunc(strings.Split(hosts, ","), all) {
		return ""
	}
	return strings.Trim(first, "[]")
}

// Share gives the server what sharing needs: where to save slots, and not to
// clear idle ones. The latter goes through the environment, which a server that
// does not know it ignores.
func (c *Command) Share(slotDir string) {
	c.Args, c.Env = optSlotPath.set(c.Args, c.Env, slotDir)
	if !optIdleSlots.given(c.Args, c.Env) {
		c.Env = setenv(c.Env, optIdleSlots.env, "0")
	}
}

// Separate has the server keep no prompts in a cache of its own, which knows no tenants,
// unless it was given a size.
func (c *Command) Separate() {
	if !optCacheRAM.given(c.Args, c.Env) {
		c.Env = setenv(c.Env, optCacheRAM.env, "0")
	}
}

// Preload adds a library to LD_PRELOAD, behind what is there.
func (c *Command) Preload(library string) error {
	path, err := filepath.Abs(library)
	if err != nil {
		return err
	}
	if strings.ContainsAny(path, ": ") {
		return fmt.Errorf("%s cannot stand in LD_PRELOAD, which ends names at spaces and colons", path)
	}
	if _, err := os.Stat(path); err != nil {
		return err
	}
	if before, ok := lookup(c.Env, "LD_PRELOAD"); ok && before != "" {
		path = before + ":" + path
	}
	c.Env = setenv(c.Env, "LD_PRELOAD", path)
	return nil
}

// freePort is a port of the loopback address that nobody has a moment later
// either, most likely: where somebody does, the server cannot be started.
func freePort() (string, error) {
	ln, err := net.Listen("tcp", net.JoinHostPort(serverHost, "0"))
	if err != nil {
		return "", fmt.Errorf("cannot find a free port for the server: %w", err)
	}
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	return port, err
}
