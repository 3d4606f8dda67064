package launch

import (
	"slices"
	"strings"
)

// option is one of llama-server's options: the name that sets it, the one that
// takes it back, and the environment variable that is read where neither is
// given.
type option struct{ name, negated, env string }

// The options that matter here (llama.cpp: common/arg.cpp).
var (
	optHost      = option{name: "--host", env: "LLAMA_ARG_HOST"}
	optPort      = option{name: "--port", env: "LLAMA_ARG_PORT"}
	optSlotPath  = option{name: "--slot-save-path", env: "LLAMA_ARG_SLOT_SAVE_PATH"}
	optKey       = option{name: "--api-key", env: "LLAMA_API_KEY"}
	optKeyFile   = option{name: "--api-key-file", env: "LLAMA_ARG_API_KEY_FILE"}
	optPrefix    = option{name: "--api-prefix", env: "LLAMA_ARG_API_PREFIX"}
	optTLS       = option{name: "--ssl-key-file", env: "LLAMA_ARG_SSL_KEY_FILE"}
	optCacheRAM  = option{name: "--cache-ram", env: "LLAMA_ARG_CACHE_RAM"}
	optModelsDir = option{name: "--models-dir", env: "LLAMA_ARG_MODELS_DIR"}
	optIdleSlots = option{name: "--cache-idle-slots", negated: "--no-cache-idle-slots", env: "LLAMA_ARG_CACHE_IDLE_SLOTS"}

	optModelsPreset = option{name: "--models-preset", env: "LLAMA_ARG_MODELS_PRESET"}
)

// spelled is an argument as llama-server compares it: underscores in the name of
// a long option are dashes.
func spelled(arg string) string {
	if strings.HasPrefix(arg, "--") {
		return strings.ReplaceAll(arg, "_", "-")
	}
	return arg
}

// index is where the option stands last in args, the program's name left out, or
// -1.
func (o option) index(args []string) int {
	for i := len(args) - 1; i > 0; i-- {
		if s := spelled(args[i]); s == o.name || o.negated != "" && s == o.negated {
			return i
		}
	}
	return -1
}

// value is what the arguments, or else the environment, say of the option.
func (o option) value(args, env []string) (string, bool) {
	if i := o.index(args); i >= 0 && i+1 < len(args) {
		return args[i+1], true
	}
	return lookup(env, o.env)
}

// given tells whether the user said anything about the option.
func (o option) given(args, env []string) bool {
	_, inEnv := lookup(env, o.env)
	return inEnv || o.index(args) >= 0
}

// set gives the option a value in place of whatever the user gave.
func (o option) set(args, env []string, value string) (newArgs, newEnv []string) {
	args = slices.Clone(args)
	for i := o.index(args); i >= 0; i = o.index(args) {
		args = slices.Delete(args, i, min(i+2, len(args)))
	}
	return append(args, o.name, value), unset(env, o.env)
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
