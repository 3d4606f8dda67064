package inject

import (
	"regexp"
	"slices"
	"strings"
)

// A llama-server that is told of no model is a router: it starts a server for each of
// several, and has no slots of its own.

// modelOptions tell a llama-server its model.
var modelOptions = []option{
	optModel,
	{[]string{"-mu", "--model-url"}, "LLAMA_ARG_MODEL_URL"},
	{[]string{"-hf", "-hfr", "--hf-repo"}, "LLAMA_ARG_HF_REPO"},
	{[]string{"-dr", "--docker-repo"}, "LLAMA_ARG_DOCKER_REPO"},
}

var (
	// modelPreset is an option that names a model of llama.cpp's own choice, as
	// --gpt-oss-20b-default.
	modelPreset = regexp.MustCompile(`^--.*-(default|spec)$`)
	// bareImage are llama.cpp's own images, which name no model: others may in variables.
	bareImage = regexp.MustCompile(`^ghcr\.io/gg(ml-org|erganov)/llama\.cpp:`)
)

// namesModel tells whether anything in the pod may tell the server its model.
func (p *planner) namesModel() bool {
	return len(p.c.EnvFrom) > 0 ||
		slices.ContainsFunc(modelOptions, func(o option) bool {
			_, given, _ := p.cmd.value(o)
			return given
		}) ||
		slices.ContainsFunc(p.cmd.words[p.cmd.first:], func(w string) bool {
			return modelPreset.MatchString(name(w)) || strings.Contains(w, "$(")
		})
}

// checkModel refuses a server that is certain to be a router.
func (p *planner) checkModel() error {
	if bareImage.MatchString(p.c.Image) && !p.namesModel() {
		return refuse(kindServer, "the server names no model, and one of several models does not save slots; want -m or -hf")
	}
	return nil
}
