package launch

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/llamaserver"
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

	files *config // nil: not read yet
}

// Place is where the sidecar stands and where the server went.
type Place struct {
	// Listen is the address that the user meant the server to have, or "" if that
	// was several.
	Listen string
	// URL is the server's base URL.
	URL string
}

// Check refuses, by name, what cannot be run behind a sidecar. listens is true if
// the sidecar was given an address of its own, and does not take the server's.
func (c *Command) Check(listens bool) error {
	if len(c.Args) == 0 {
		return errors.New("no command to start: write it behind --, as in: -- llama-server -m model.gguf")
	}
	if _, ok := c.value(llamaserver.TLSKey); ok {
		return fmt.Errorf("%s: the sidecar speaks plain HTTP to clients and server; put TLS in front of it", llamaserver.TLSKey.Name())
	}
	if p, _ := c.value(llamaserver.Prefix); p != "" {
		return fmt.Errorf("%s %s: the sidecar knows the server's paths without a prefix; put the prefix in front of it", llamaserver.Prefix.Name(), p)
	}
	if h, _ := c.value(llamaserver.Host); strings.HasSuffix(h, ".sock") {
		return fmt.Errorf("%s %s: the sidecar listens on TCP only", llamaserver.Host.Name(), h)
	}
	if _, ok := c.host(); !ok && !listens {
		h, _ := c.value(llamaserver.Host)
		return fmt.Errorf("%s %s: the sidecar listens on one address; want --listen to name it", llamaserver.Host.Name(), h)
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
	dir, _ := c.value(llamaserver.SlotPath)
	return dir
}

// APIKey is a key that the server will accept, or "" where it asks for none.
func (c *Command) APIKey() (string, error) {
	if keys, ok := c.value(llamaserver.APIKey); ok && keys != "" {
		return configs.OneKey(keys), nil
	}
	file, ok := c.value(llamaserver.KeyFile)
	if !ok {
		return "", nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("cannot read the server's %s: %w", llamaserver.KeyFile.Name(), err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			return line, nil
		}
	}
	return "", fmt.Errorf("the server's %s %s holds no key", llamaserver.KeyFile.Name(), file)
}

// isSecret tells whether a name is that of an option, or of a variable that env or a script
// may be given, whose value is not to be seen.
func isSecret(name string) bool {
	return slices.ContainsFunc([]llamaserver.Option{llamaserver.APIKey, llamaserver.HFToken},
		func(o llamaserver.Option) bool { return o.Is(name) || name == o.Env })
}

// shown is the command line as it may be logged: without keys and tokens.
func (c *Command) shown() []string {
	const withheld = "(withheld)"
	args := slices.Clone(c.Args)
	for i, arg := range c.Args {
		name, _, joined := strings.Cut(arg, "=")
		switch {
		case !isSecret(name):
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
	free, err := freePort()
	if err != nil {
		return Place{}, err
	}
	place := Place{URL: "http://" + net.JoinHostPort(serverHost, free)}
	if host, ok := c.host(); ok {
		place.Listen = net.JoinHostPort(host, cmp.Or(c.port(), serverPort))
	}
	if c.onVertex() {
		c.Env = setenv(c.Env, llamaserver.VertexPort, free)
	}
	c.set(llamaserver.Host, serverHost)
	c.set(llamaserver.Port, free)
	return place, nil
}

// port is the one that the user gave the server, or "".
func (c *Command) port() string {
	if c.onVertex() {
		port, _ := lookup(c.Env, llamaserver.VertexPort)
		return port
	}
	port, _ := c.value(llamaserver.Port)
	return port
}

func (c *Command) onVertex() bool {
	mode, _ := lookup(c.Env, llamaserver.VertexMode)
	return mode == llamaserver.VertexPrediction
}

// host is where the sidecar listens instead of the server; ok is false if that is on
// several addresses.
func (c *Command) host() (host string, ok bool) {
	hosts, _ := c.value(llamaserver.Host)
	return llamaserver.OneAddress(cmp.Or(hosts, serverHost))
}

// Share gives the server what sharing needs: where to save slots, and not to
// clear idle ones. The latter goes through the environment, which a server that
// does not know it ignores.
func (c *Command) Share(slotDir string) {
	c.set(llamaserver.SlotPath, slotDir)
	if !c.given(llamaserver.IdleSlots) {
		c.Env = setenv(c.Env, llamaserver.IdleSlots.Env, "0")
	}
}

// Separate has the server keep no prompts in a cache of its own, which knows no tenants,
// unless it was given a size.
func (c *Command) Separate() {
	if !c.given(llamaserver.CacheRAM) {
		c.Env = setenv(c.Env, llamaserver.CacheRAM.Env, "0")
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
