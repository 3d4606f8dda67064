// Package llamaserver knows how llama-server is told what to do: the program's names, the
// options that matter to a sidecar, and what their values mean. Where the words and
// variables come from, a command line or a pod, is its callers' concern.
package llamaserver

import (
	"iter"
	"slices"
	"strings"
)

// Option is one of llama-server's options (llama.cpp: common/arg.cpp).
type Option struct {
	// Names set it; the last one is the one to write.
	Names []string
	// Negated takes it back; empty: nothing does.
	Negated string
	// Env is the variable that is read if no word gives the option. NegatedEnv goes first.
	Env string
}

// The options that matter.
var (
	Host     = Option{Names: []string{"--host"}, Env: "LLAMA_ARG_HOST"}
	Port     = Option{Names: []string{"--port"}, Env: "LLAMA_ARG_PORT"}
	Prefix   = Option{Names: []string{"--api-prefix"}, Env: "LLAMA_ARG_API_PREFIX"}
	TLSKey   = Option{Names: []string{"--ssl-key-file"}, Env: "LLAMA_ARG_SSL_KEY_FILE"}
	TLSCert  = Option{Names: []string{"--ssl-cert-file"}, Env: "LLAMA_ARG_SSL_CERT_FILE"}
	APIKey   = Option{Names: []string{"--api-key"}, Env: "LLAMA_API_KEY"}
	KeyFile  = Option{Names: []string{"--api-key-file"}, Env: "LLAMA_ARG_API_KEY_FILE"}
	HFToken  = Option{Names: []string{"-hft", "--hf-token"}, Env: "HF_TOKEN"}
	SlotPath = Option{Names: []string{"--slot-save-path"}, Env: "LLAMA_ARG_SLOT_SAVE_PATH"}
	CacheRAM = Option{Names: []string{"-cram", "--cache-ram"}, Env: "LLAMA_ARG_CACHE_RAM"}

	IdleSlots  = Option{Names: []string{"--cache-idle-slots"}, Negated: "--no-cache-idle-slots", Env: "LLAMA_ARG_CACHE_IDLE_SLOTS"}
	Slots      = Option{Names: []string{"--slots"}, Negated: "--no-slots", Env: "LLAMA_ARG_ENDPOINT_SLOTS"}
	Embeddings = Option{Names: []string{"--embedding", "--embeddings"}, Env: "LLAMA_ARG_EMBEDDINGS"}
	Reranking  = Option{Names: []string{"--rerank", "--reranking"}, Env: "LLAMA_ARG_RERANKING"}
)

// Name is the name to write, and to tell users.
func (o Option) Name() string { return o.Names[len(o.Names)-1] }

// Is reports whether a word is one of the option's names, or takes it back.
func (o Option) Is(word string) bool {
	word = spelled(word)
	return slices.Contains(o.Names, word) || o.Negated != "" && word == o.Negated
}

// IsKey reports whether a key of a configuration file of llama.cpp gives the option: one of
// its names without the dashes, or a variable.
func (o Option) IsKey(key string) bool {
	keys := slices.Concat(o.Names, []string{o.Negated, o.Env, o.NegatedEnv()})
	return slices.ContainsFunc(keys, func(name string) bool { return strings.TrimLeft(name, "-") == key })
}

// NegatedEnv is the variable that takes the option back as soon as it is set, whatever it
// holds; empty: none does.
func (o Option) NegatedEnv() string {
	if o.Negated == "" {
		return ""
	}
	return strings.Replace(o.Env, "LLAMA_ARG_", "LLAMA_ARG_NO_", 1)
}

// Switch reports what the last of the words, or else the environment, says of an option
// without a value: that it is on, or off, or neither.
func (o Option) Switch(words []string, lookup func(variable string) (value string, set bool)) (on, off bool) {
	for _, w := range words {
		if o.Is(w) {
			off = spelled(w) == o.Negated
			on = !off
		}
	}
	if on || off {
		return on, off
	}
	if _, set := lookup(o.NegatedEnv()); set {
		return false, true
	}
	v, _ := lookup(o.Env)
	return slices.Contains(truthy, v), slices.Contains(falsy, v)
}

// The values of variables that llama-server takes for yes and no.
var (
	truthy = []string{"on", "enabled", "true", "1"}
	falsy  = []string{"off", "disabled", "false", "0"}
)

// Values are the words that hold the option's value, which follow its name:
// llama-server takes none that "=" joins to the name. The last one counts.
func (o Option) Values(words []string) iter.Seq[*string] {
	return func(yield func(*string) bool) {
		for i := 0; i+1 < len(words); i++ {
			if !o.Is(words[i]) {
				continue
			}
			if i++; !yield(&words[i]) {
				return
			}
		}
	}
}

// spelled is a word as llama-server compares it: underscores in the name of a long
// option are dashes.
func spelled(word string) string {
	if strings.HasPrefix(word, "--") {
		return strings.ReplaceAll(word, "_", "-")
	}
	return word
}
