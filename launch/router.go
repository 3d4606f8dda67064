package launch

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// A llama-server that is told of no model is a router: it starts a server for each of
// several, and has no slots of its own.

// What tells a llama-server its model (llama.cpp: common/arg.cpp). modelPresets end the
// options that name one of llama.cpp's own choice, as --gpt-oss-20b-default.
var (
	modelOptions   = []string{"-m", "--model", "-mu", "--model-url", "-hf", "-hfr", "--hf-repo", "-dr", "--docker-repo"}
	modelVariables = []string{"LLAMA_ARG_MODEL", "LLAMA_ARG_MODEL_URL", "LLAMA_ARG_HF_REPO", "LLAMA_ARG_DOCKER_REPO"}
	modelPresets   = []string{"-default", "-spec"}
)

// namesModel tells whether anything may tell the server its model.
func (c *Command) namesModel() bool {
	tells := func(arg string) bool {
		name, _, _ := strings.Cut(spelled(arg), "=")
		return slices.Contains(modelOptions, name) || strings.HasPrefix(name, "--") &&
			slices.ContainsFunc(modelPresets, func(end string) bool { return strings.HasSuffix(name, end) })
	}
	isSet := func(variable string) bool {
		_, ok := lookup(c.Env, variable)
		return ok
	}
	return slices.ContainsFunc(c.Args, tells) || slices.ContainsFunc(modelVariables, isSet)
}

// isServer tells whether the program is llama-server itself, or llama with the word serve. A
// script may add arguments.
func (c *Command) isServer() bool {
	switch filepath.Base(c.Args[0]) {
	case "llama-server":
		return true
	case "llama":
		return len(c.Args) > 1 && c.Args[1] == "serve"
	}
	return false
}

// checkRouter refuses a server that is certain to be a router.
func (c *Command) checkRouter() error {
	const why = "a router of several models has no slots to share; want a server of one model (-m or -hf), with a sidecar of its own"
	if c.namesModel() {
		return nil
	}
	for _, o := range []option{optModelsDir, optModelsPreset} {
		if v, ok := o.value(c.Args, c.Env); ok {
			return fmt.Errorf("%s %s: %s", o.name, v, why)
		}
	}
	if c.isServer() {
		return errors.New("the server's command names no model: " + why)
	}
	return nil
}
