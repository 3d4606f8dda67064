package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/eval"
)

// settings are the options of the configuration that commands take as flags.
type settings struct {
	flags *pflag.FlagSet
	file  string
	set   map[string]func(*configs.Config)
}

// addSettings defines the named flags on a command; all know --config.
func addSettings(flags *pflag.FlagSet, names ...string) *settings {
	s := &settings{flags: flags, set: map[string]func(*configs.Config){}}
	flags.StringVar(&s.file, "config", "", "YAML `FILE`; flags win over it, but not over what a route sets")
	for _, name := range names {
		s.define(name)
	}
	return s
}

func (s *settings) define(name string) {
	text := func(usage string, put func(*configs.Config, string)) {
		v := s.flags.String(name, "", usage)
		s.set[name] = func(c *configs.Config) { put(c, *v) }
	}
	switch name {
	case "backend":
		text("base `URL` of the llama-server", func(c *configs.Config, v string) { c.Backend.URL = v })
	case "slot-dir":
		text("the server's --slot-save-path, as seen from here (`DIR`)", func(c *configs.Config, v string) { c.Backend.SlotDir = v })
	case "model":
		text("GGUF `FILE` as seen from here; default: what the backend names", func(c *configs.Config, v string) { c.Backend.Model = v })
	case "library":
		text("`FILE` of libsemshare.so; default: beside the program", func(c *configs.Config, v string) { c.Backend.Library = v })
	case "api-key-env":
		var key string
		s.flags.Func(name, "`NAME` of the environment variable that holds a key of the backend's", func(v string) error {
			list, ok := os.LookupEnv(v)
			if !ok {
				return fmt.Errorf("environment variable %q is not set", v)
			}
			key, _, _ = strings.Cut(list, ",") // llama-server takes a list
			return nil
		})
		s.set[name] = func(c *configs.Config) { c.Backend.APIKey = key }
	case "listen":
		text("`HOST:PORT` for clients (default 127.0.0.1:8080)", func(c *configs.Config, v string) { c.Listen = v })
	case "admin":
		text("`HOST:PORT` of /healthz, /readyz, /metrics (default 127.0.0.1:8090)", func(c *configs.Config, v string) { c.Admin = v })
	case "redis":
		text("`URL` of a Redis for the index; default: embedded", func(c *configs.Config, v string) { c.Index.Redis = v })
	case "reuse":
		text(either(configs.Reuses)+" (default fuzzy)", func(c *configs.Config, v string) { c.Defaults.Reuse = configs.Reuse(v) })
	case "way":
		text(either(configs.Ways)+" (default auto)", func(c *configs.Config, v string) { c.Backend.Way = v })
	case "unrepaired":
		text("cold or accept (default cold)", func(c *configs.Config, v string) { c.Defaults.Unrepaired = configs.Unrepaired(v) })
	case "log-level":
		text(either(configs.LogLevels)+" (default info)", func(c *configs.Config, v string) { c.Log.Level = v })
	case "log-format":
		text("json or console (default json)", func(c *configs.Config, v string) { c.Log.Format = v })
	case "min-similarity":
		v := s.flags.Float64(name, 0, "least similarity at which a prompt is shared (default 0.5)")
		s.set[name] = func(c *configs.Config) { c.Defaults.MinSimilarity = *v }
	case "retention":
		v := s.flags.Float64(name, 0, "share of a shared prompt's KV cells that the agent puts into the cache (default 1)")
		s.set[name] = func(c *configs.Config) { c.Defaults.Retention = *v }
	case "min-tokens":
		v := s.flags.Int(name, 0, "shortest prompt that is shared or kept (default 256)")
		s.set[name] = func(c *configs.Config) { c.Defaults.MinTokens, c.Store.MinTokens = *v, *v }
	case "budget":
		v := size(0)
		s.flags.Var(&v, name, "most `BYTES` that references may take, as 8GiB (default 8GiB)")
		s.set[name] = func(c *configs.Config) { c.Store.Budget = int64(v) }
	case "quality-kl":
		v := s.flags.Float64(name, 0, fmt.Sprintf("divergence from unshared answers to expect, in nats, of a model that is calibrated; 0: no target (default %g)", configs.Default().Defaults.Quality.KL))
		s.set[name] = func(c *configs.Config) { c.Defaults.Quality.KL = *v }
	default:
		panic("flag " + name + " is not defined")
	}
}

// either is a list of words as a flag's usage has it: a, b or c.
func either(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// override puts the flags that were given over a configuration.
func (s *settings) override(c *configs.Config) {
	s.flags.Visit(func(f *pflag.Flag) {
		if set := s.set[f.Name]; set != nil {
			set(c)
		}
	})
}

// given tells whether a flag, or the file's top-level option of that name, was given.
func (s *settings) given(name string) bool {
	return s.flags.Changed(name) || configs.Gives(s.file, name)
}

// measured is the configuration where the sidecar is only measured.
func (s *settings) measured() (*configs.Config, error) {
	return configs.Load(s.file, func(c *configs.Config) {
		s.override(c)
		eval.Measured(c)
	})
}

// preview is the configuration where serve starts the backend itself, of which
// therefore nothing may be said; its URL is not to be used.
func (s *settings) preview() (*configs.Config, error) {
	var faults error
	listen := s.given("listen")
	c, err := configs.Load(s.file, func(c *configs.Config) {
		s.override(c)
		if !listen {
			c.Listen = freePort // the server's command line says where
		}
		if c.Backend.URL != "" && c.Backend.URL != unused {
			faults = fmt.Errorf("the backend is %s, but a server's command is given too: leave out one of them", c.Backend.URL)
		}
		c.Backend.URL = unused
		if c.Backend.SlotDir == "" {
			c.Backend.SlotDir = unusedDir
		}
	})
	if err = errors.Join(faults, err); err != nil {
		return nil, err
	}
	if c.Backend.SlotDir == unusedDir {
		c.Backend.SlotDir = ""
	}
	return c, nil
}

// freePort stands for an address that is chosen later.
const freePort = eval.Listen

// What stands for what is not known yet in a configuration that is validated.
const (
	unused    = "http://not-known-yet.invalid"
	unusedDir = "/not-known-yet"
)

// size is a flag in bytes.
type size int64

func (s *size) String() string {
	if *s == 0 {
		return ""
	}
	return configs.FormatSize(int64(*s))
}

func (s *size) Type() string { return "size" }

func (s *size) Set(text string) error {
	n, err := configs.ParseSize(text)
	*s = size(n)
	return err
}
