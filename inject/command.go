package inject

import (
	"path"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/semsharekv/semsharekv/internal/llamaserver"
)

// command is the command line of a llama-server container: the words of the
// container's command followed by those of its args, as Kubernetes runs them.
type command struct {
	words []string
	split int // words[:split] is the container's command
	first int // index of the first option
	env   environment
}

var (
	shells   = []string{"sh", "bash", "ash", "dash", "zsh", "busybox"}
	wrappers = []string{"tini", "dumb-init", "catatonit", "env", "nice", "ionice", "numactl", "taskset", "stdbuf", "setpriv", "exec"}
)

// serverImage are the images whose entrypoint is llama-server, by the whole of their
// names: llama-server-exporter is another program. fullImage are those whose
// entrypoint is a script that takes --server first.
var (
	serverImage = regexp.MustCompile(`(^|/)(llama\.cpp:server[^/]*|llama(-cpp)?-server([:@][^/]*)?)$`)
	fullImage   = regexp.MustCompile(`(^|/)llama\.cpp:full[^/]*$`)
	// knownCMD are the images that are known to have no CMD, which args replace.
	knownCMD = regexp.MustCompile(`(^|/)llama\.cpp:(server|full)[^/]*$`)
)

// runsServer reports whether the container looks like a llama-server.
func runsServer(c *corev1.Container) bool {
	if len(c.Command) == 0 {
		return serverImage.MatchString(c.Image) || fullImage.MatchString(c.Image) && len(c.Args) > 0 && startsServer(c.Args[0])
	}
	words := append(slices.Clone(c.Command), c.Args...)
	if isShellLine(words) {
		return slices.ContainsFunc(words, serverLine.MatchString)
	}
	for i := range words {
		if llamaserver.Program(words[i:]) > 0 {
			return true
		}
	}
	return false
}

// serverLine is a shell line that runs a llama-server.
var serverLine = regexp.MustCompile(`llama-server|(^|[\s/;&])llama\s+server?(\s|$)`)

func startsServer(word string) bool { return word == "--server" || word == "-s" }

func isShellLine(words []string) bool {
	return len(words) > 0 && slices.Contains(shells, path.Base(words[0])) &&
		slices.ContainsFunc(words[1:], func(w string) bool { return strings.HasPrefix(w, "-") && strings.HasSuffix(w, "c") })
}

// parseCommand finds where the server's options stand. named says that the pod
// names this container: an image that is not known is then believed to be one.
func parseCommand(c *corev1.Container, named bool) (*command, error) {
	cmd := &command{
		words: append(slices.Clone(c.Command), c.Args...),
		split: len(c.Command),
		env:   newEnvironment(c.Env),
	}
	if len(c.Command) == 0 {
		return cmd, cmd.fromImage(c, named)
	}
	if isShellLine(cmd.words) {
		return nil, refuse(kindCommand, "container %q runs a shell line (%s); want the llama-server and its options as a list", c.Name, program(c.Command))
	}
	for i, w := range cmd.words {
		if n := llamaserver.Program(cmd.words[i:]); n > 0 {
			cmd.first = i + n
			return cmd, nil
		}
		base := path.Base(w)
		switch {
		case base == "env" && llamaserver.Program(cmd.words[i+1:]) == 0:
			return nil, refuse(kindCommand, "container %q has env change its variables (%s), which nobody sees here; want them in the container's env", c.Name, program(c.Command))
		case i == 0 && !slices.Contains(wrappers, base):
			return nil, refuse(kindCommand, "container %q runs %s, which is not llama-server; want its command to name it in a word of its own", c.Name, program(c.Command))
		}
	}
	return nil, refuse(kindCommand, "the command of container %q (%s) does not name llama-server", c.Name, program(c.Command))
}

func (cmd *command) fromImage(c *corev1.Container, named bool) error {
	switch {
	case fullImage.MatchString(c.Image):
		if len(c.Args) == 0 || !startsServer(c.Args[0]) {
			return refuse(kindCommand, "container %q has image %q, whose args begin with --server to run a llama-server", c.Name, c.Image)
		}
		cmd.first = 1
	case !serverImage.MatchString(c.Image) && !named:
		return refuse(kindCommand, "container %q has no command and its image %q is not known to be a llama-server", c.Name, c.Image)
	}
	if len(c.Args) == 0 && !knownCMD.MatchString(c.Image) {
		return refuse(kindCommand, "container %q has neither command nor args, and args of ours would replace those of its image %q; want them written out", c.Name, c.Image)
	}
	return nil
}

// maxProgram bounds what is said of a command: annotations have no room for more.
const maxProgram = 80

// program names what the words run, and nothing that stands behind it: keys may be there.
func program(words []string) string {
	name := words[0]
	if i := strings.IndexAny(name, " \t\n="); i >= 0 {
		name = name[:i]
	}
	name = strings.ToValidUTF8(name[:min(len(name), maxProgram)], "")
	if len(words) > 1 || len(name) < len(words[0]) {
		name += " …"
	}
	return name
}

// options are the words behind those that run the server.
func (cmd *command) options() []string { return cmd.words[cmd.first:] }

// value is what the server takes the option to be: the last of the words, else
// the environment's. known is false where it comes from somewhere that cannot be
// seen here.
func (cmd *command) value(o llamaserver.Option) (v string, given, known bool) {
	known = true
	for word := range o.Values(cmd.options()) {
		given = true
		v, known = cmd.env.expand(*word)
	}
	if given {
		return v, true, known
	}
	return cmd.env.get(o.Env)
}

// switches reports whether an option without a value is certain to be on, or off.
func (cmd *command) switches(o llamaserver.Option) (on, off bool) {
	return o.Switch(cmd.options(), func(variable string) (string, bool) {
		v, given, _ := cmd.env.get(variable)
		return v, given
	})
}

// set gives the option the value, in place where it stands, else at the end.
func (cmd *command) set(o llamaserver.Option, v string) {
	v = strings.ReplaceAll(v, "$(", "$$(")
	found := false
	for word := range o.Values(cmd.options()) {
		found = true
		*word = v
	}
	if !found {
		cmd.words = append(cmd.words, o.Name(), v)
	}
}

// command and args are the container's fields, as set has changed them.
func (cmd *command) command() []string { return cmd.words[:cmd.split] }
func (cmd *command) args() []string    { return cmd.words[cmd.split:] }
