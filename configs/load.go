package configs

import (
	"fmt"
	"os"
	"strings"
)

// Load reads the file, puts override over it (flags win over the file), and
// validates the whole. Routes inherit what override puts into the defaults, for
// which it is called twice. An empty name means no file. The error is Errors, with
// everything that is wrong, or says why the file cannot be read.
func Load(file string, override func(*Config)) (*Config, error) {
	text, err := read(file)
	if err != nil {
		return nil, err
	}
	return Parse(file, text, override)
}

// read is the file's text; an empty name means no file.
func read(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	return text, nil
}

// Parse is Load for a text that is at hand; file is only named in errors.
func Parse(file string, text []byte, override func(*Config)) (*Config, error) {
	c := Default()
	if override == nil {
		override = func(*Config) {}
	}
	d := decoder{file: file, override: override, lines: map[string]int{}}
	if !d.decode(text, c) {
		return nil, d.errs
	}
	override(c)
	c.Backend.APIKey = OneKey(c.Backend.APIKey)
	if err := append(d.errs, c.check(file, d.lines)...).err(); err != nil {
		return nil, err
	}
	return c, nil
}

// OneKey is the first key of a list, as a Secret may hold for the server's --api-key: the
// server takes any of them. Secrets tend to end in a line break.
func OneKey(keys string) string {
	first, _, _ := strings.Cut(keys, ",")
	return strings.TrimSpace(first)
}

// Gives tells whether a file says anything about a top-level option, as "listen". What
// is wrong with the file Load reports.
func Gives(file, option string) bool {
	text, err := read(file)
	return err == nil && gives(text, option)
}

// gives is Gives for a text; the option "" is the whole: an empty file, or one of comments
// alone, says nothing.
func gives(text []byte, option string) bool {
	d := decoder{override: func(*Config) {}, lines: map[string]int{}}
	d.decode(text, Default())
	return d.lines[option] > 0
}

// RestartNeeded names what differs between two configurations and takes effect only
// when the sidecar starts.
func (c *Config) RestartNeeded(next *Config) []string {
	var names []string
	differs := func(name string, differ bool) {
		if differ {
			names = append(names, name)
		}
	}
	differs("listen", c.Listen != next.Listen)
	differs("admin", c.Admin != next.Admin)
	differs("backend", c.Backend != next.Backend)
	differs("limits.connections", c.Limits.Connections != next.Limits.Connections)
	differs("limits.idle_timeout", c.Limits.Idle != next.Limits.Idle)
	differs("limits.slot_wait", c.Limits.SlotWait != next.Limits.SlotWait)
	differs("index", c.Index != next.Index)
	differs("store", c.Store != next.Store)
	differs("log.format", c.Log.Format != next.Log.Format)
	return names
}
