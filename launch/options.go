package launch

import (
	"slices"
	"strings"

	"github.com/semsharekv/semsharekv/internal/llamaserver"
)

// value is what the arguments, or else the environment, or else configuration files say of
// an option.
func (c *Command) value(o llamaserver.Option) (v string, given bool) {
	for word := range o.Values(c.Args) {
		v, given = *word, true
	}
	if given {
		return v, true
	}
	if v, given = lookup(c.Env, o.Env); given {
		return v, true
	}
	return c.config().value(o)
}

// given tells whether the user said anything about an option.
func (c *Command) given(o llamaserver.Option) bool {
	_, inEnv := lookup(c.Env, o.Env)
	_, takenBack := lookup(c.Env, o.NegatedEnv())
	_, inFile := c.config().value(o)
	return inEnv || takenBack || inFile || slices.ContainsFunc(c.Args, o.Is)
}

// set gives an option a value in place of whatever the user gave.
func (c *Command) set(o llamaserver.Option, value string) {
	var args []string
	for i := 0; i < len(c.Args); i++ {
		if o.Is(c.Args[i]) {
			i++ // its value goes too
			continue
		}
		args = append(args, c.Args[i])
	}
	c.Args, c.Env = append(args, o.Name(), value), unset(c.Env, o.Env)
}

// lookup finds a variable; the last of several counts, as for the C library's
// getenv after a fork by Go.
func lookup(env []string, name string) (string, bool) {
	for _, kv := range slices.Backward(env) {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			return v, true
		}
	}
	return "", false
}

func unset(env []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
}

func setenv(env []string, name, value string) []string {
	return append(unset(env, name), name+"="+value)
}
