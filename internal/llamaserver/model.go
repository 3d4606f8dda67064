package llamaserver

import (
	"regexp"
	"slices"
)

// A llama-server that is told of no model is a router: it starts a server for each of
// several, and has no slots of its own.

// The options of a router.
var (
	ModelsDir    = Option{Names: []string{"--models-dir"}, Env: "LLAMA_ARG_MODELS_DIR"}
	ModelsPreset = Option{Names: []string{"--models-preset"}, Env: "LLAMA_ARG_MODELS_PRESET"}
)

// Model is the option that names the model's file.
var Model = Option{Names: []string{"-m", "--model"}, Env: "LLAMA_ARG_MODEL"}

// ModelOptions tell a llama-server its model.
var ModelOptions = []Option{
	Model,
	{Names: []string{"-mu", "--model-url"}, Env: "LLAMA_ARG_MODEL_URL"},
	{Names: []string{"-hf", "-hfr", "--hf-repo"}, Env: "LLAMA_ARG_HF_REPO"},
	{Names: []string{"-dr", "--docker-repo"}, Env: "LLAMA_ARG_DOCKER_REPO"},
}

// choice is an option that names a model of llama.cpp's own choice, as
// --gpt-oss-20b-default; specDefault, which looks like one, names none.
var choice = regexp.MustCompile(`^--.*-(default|spec)$`)

const specDefault = "--spec-default"

// isChoice reports whether a word names a model of llama.cpp's own choice.
func isChoice(word string) bool {
	word = spelled(word)
	return word != specDefault && choice.MatchString(word)
}

// NamesModel reports whether a word of a command line, or something else, tells the server
// its model. given reports whether something else gives it an option.
func NamesModel(words []string, given func(o Option) bool) bool {
	return slices.ContainsFunc(words, isChoice) ||
		slices.ContainsFunc(ModelOptions, func(o Option) bool { return slices.ContainsFunc(words, o.Is) || given(o) })
}
