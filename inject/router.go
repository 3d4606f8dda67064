package inject

import (
	"path"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/semsharekv/semsharekv/internal/llamaserver"
)

// bareImage are llama.cpp's own images, which name no model: others may in variables.
var bareImage = regexp.MustCompile(`^ghcr\.io/gg(ml-org|erganov)/llama\.cpp:`)

// mayNameModel tells whether anything in the pod may tell the server its model.
func (p *planner) mayNameModel() bool {
	return len(p.c.EnvFrom) > 0 ||
		slices.ContainsFunc(p.c.VolumeMounts, p.mayConfigure) ||
		slices.ContainsFunc(p.cmd.options(), func(w string) bool { return strings.Contains(w, "$(") }) ||
		p.namesModel()
}

// userConfig is where a user's configuration file of llama.cpp may be mounted.
var userConfig = regexp.MustCompile(`/\.config(/llama\.cpp)?$|/llama\.cpp/config\.ini$`)

// mayConfigure tells whether a mount may hold a configuration file of llama.cpp, which nobody
// sees here.
func (p *planner) mayConfigure(m corev1.VolumeMount) bool {
	const file = "llama.cpp/config.ini"
	dir, _, _ := p.cmd.env.get("XDG_CONFIG_HOME")
	return overlap(m.MountPath, path.Join("/etc", file)) ||
		dir != "" && overlap(m.MountPath, path.Join(dir, file)) ||
		userConfig.MatchString(path.Clean(m.MountPath))
}

// namesModel tells whether something in the pod tells the server its model.
func (p *planner) namesModel() bool {
	return llamaserver.NamesModel(p.cmd.options(), func(o llamaserver.Option) bool {
		_, given, _ := p.cmd.env.get(o.Env)
		return given
	})
}

// checkModel refuses a server that is certain to be a router: one that is told of models and
// not of a model, or of neither.
func (p *planner) checkModel() error {
	for _, o := range []llamaserver.Option{llamaserver.ModelsDir, llamaserver.ModelsPreset} {
		if _, given, _ := p.cmd.value(o); given && !p.namesModel() {
			return refuse(kindServer, "the server has %s: one of several models does not save slots; want -m or -hf", o.Name())
		}
	}
	if bareImage.MatchString(p.c.Image) && !p.mayNameModel() {
		return refuse(kindServer, "the server names no model, and one of several models does not save slots; want -m or -hf")
	}
	return nil
}
