package launch

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/semsharekv/semsharekv/internal/llamaserver"
)

// config is what llama.cpp's configuration files say, which llama-server reads since b10398
// (common/arg.cpp, common/preset.cpp). Words and variables go first.
type config struct {
	sections []section // that hold for a server, those that win last
	unread   bool      // there is a file that says nobody knows what
}

// section holds values by their keys: names of options without the dashes, or variables.
type section map[string]string

// config reads the files, once. What cannot be read is left to the server, which ends at it
// and says so.
func (c *Command) config() *config {
	if c.files != nil {
		return c.files
	}
	c.files = &config{}
	for _, file := range configFiles(c.Env) {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		sections, ok := parseConfig(string(text))
		if err != nil || !ok {
			c.files.unread = true
			continue
		}
		c.files.sections = append(c.files.sections, sections["*"], sections[defaultSection])
	}
	return c.files
}

// configFiles are the machine's file and the user's.
func configFiles(env []string) []string {
	dir, _ := lookup(env, "XDG_CONFIG_HOME")
	if dir == "" {
		dir = filepath.Join(home(env), ".config")
	}
	return []string{"/etc/llama.cpp/config.ini", filepath.Join(dir, "llama.cpp", "config.ini")}
}

func home(env []string) string {
	if dir, _ := lookup(env, "HOME"); dir != "" {
		return dir
	}
	if u, err := user.Current(); err == nil {
		return u.HomeDir
	}
	return ""
}

// defaultSection is the one of what stands before any header.
const defaultSection = "default"

// The lines of a configuration file. A value is not quoted, and ends at a comment.
var (
	newline = regexp.MustCompile(`\r\n|\n|\r`)
	blank   = regexp.MustCompile(`^[ \t]*([;#].*)?$`)
	header  = regexp.MustCompile(`^\[[ \t]*([^]]+)\][ \t]*([;#].*)?$`)
	pair    = regexp.MustCompile(`^([A-Za-z_][\w.-]*)[ \t]*=[ \t]*(.*?)[ \t]*([;#].*)?$`)
)

// parseConfig returns a file's sections; ok is false if llama-server would not take it. A
// header that comes again begins its section anew.
func parseConfig(text string) (sections map[string]section, ok bool) {
	now := section{}
	sections = map[string]section{defaultSection: now}
	for _, line := range newline.Split(text, -1) {
		if m := header.FindStringSubmatch(line); m != nil {
			now = section{}
			sections[m[1]] = now
		} else if m := pair.FindStringSubmatch(line); m != nil {
			now[m[1]] = m[2]
		} else if !blank.MatchString(line) {
			return nil, false
		}
	}
	return sections, true
}

// value is what the files say of an option. Of several keys for it in one section the last
// by its letters counts, since llama.cpp sorts them.
func (f *config) value(o llamaserver.Option) (v string, given bool) {
	for _, s := range f.sections {
		for _, key := range slices.Sorted(maps.Keys(s)) {
			if o.IsKey(key) {
				v, given = s[key], true
			}
		}
	}
	return v, given
}

// words are the keys as they would stand in a command line.
func (f *config) words() (words []string) {
	for _, s := range f.sections {
		for key := range s {
			words = append(words, "--"+key)
		}
	}
	return words
}
