package configs

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/semsharekv/semsharekv/internal/redisurl"
)

// Validate reports everything that is wrong with the values, as Errors.
func (c *Config) Validate() error { return c.check("", nil).err() }

// check is Validate with the options' lines in file.
func (c *Config) check(file string, lines map[string]int) Errors {
	v := validator{file: file, lines: lines}
	v.wrong("listen", CheckAddress(c.Listen))
	v.wrong("admin", CheckAddress(c.Admin))
	v.backend(&c.Backend)
	v.apart(c)
	v.limits(&c.Limits)
	v.index(&c.Index)
	v.store(&c.Store)
	v.log(&c.Log)
	before := len(v.errs)
	v.policy("defaults", &c.Defaults)
	v.routes(c.Routes, v.errs[before:])
	return v.errs
}

type validator struct {
	file  string
	lines map[string]int
	errs  Errors
}

func (v *validator) fail(path, format string, args ...any) {
	v.errs = append(v.errs, Error{v.file, v.line(path), path, fmt.Sprintf(format, args...)})
}

// wrong reports an error that says all but where.
func (v *validator) wrong(path string, err error) {
	if err != nil {
		v.fail(path, "%v", err)
	}
}

// line is where the option stands, or the nearest option around it.
func (v *validator) line(path string) int {
	for path != "" {
		if n, ok := v.lines[path]; ok {
			return n
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return 0
}

func (v *validator) backend(b *Backend) {
	if b.URL == "" {
		v.fail("backend.url", "is missing; want the llama-server's base URL, as http://127.0.0.1:8081")
	} else {
		v.wrong("backend.url", CheckBaseURL(b.URL))
	}
	switch {
	case b.SlotDir == "":
		v.fail("backend.slot_dir", "is missing; want the directory that llama-server was given as --slot-save-path")
	case strings.Contains(b.SlotDir, "://"):
		v.fail("backend.slot_dir", "is the URL %q; want a directory, as llama-server was given as --slot-save-path", redact(b.SlotDir))
	}
	if strings.ContainsFunc(b.APIKey, unicode.IsControl) {
		v.fail("backend.api_key", "has a line break or another control character in it; want one key") // which is not to be seen
	}
	v.positive("backend.connect_timeout", b.Connect)
	v.atLeast("backend.threads", b.Threads, 0)
	v.oneOf("backend.way", b.Way, Ways...)
}

func (v *validator) limits(l *Limits) {
	if l.Body < 1 {
		v.fail("limits.body_bytes", "is %d; want at least 1", l.Body)
	}
	v.atLeast("limits.connections", l.Connections, 1)
	v.positive("limits.idle_timeout", l.Idle)
	v.notNegative("limits.drain_timeout", l.Drain)
	v.notNegative("limits.slot_wait", l.SlotWait)
}

func (v *validator) index(x *Index) {
	if x.Redis != "" {
		_, err := redisurl.Parse(x.Redis)
		v.wrong("index.redis", err)
	}
	v.positive("index.timeout", x.Timeout)
	if x.TTL < time.Second {
		v.fail("index.ttl", "is %v; want at least 1s", x.TTL)
	}
	if x.Prefix == "" || strings.ContainsAny(x.Prefix, " {}\n") {
		v.fail("index.prefix", "is %q; want a text without spaces and braces", x.Prefix)
	}
}

func (v *validator) store(s *Store) {
	if s.Budget < 1 {
		v.fail("store.budget_bytes", "is %d; want at least 1", s.Budget)
	}
	v.atLeast("store.min_tokens", s.MinTokens, 1)
	v.atLeast("store.max_generation", s.MaxGeneration, 0)
	v.share("store.novelty", s.Novelty)
	v.oneOf("store.compress", s.Compress, "off", "q8_0", "q8_0/q5_1")
}

// Validate reports what is wrong with the log's options, as Errors.
func (l *Log) Validate() error {
	var v validator
	v.log(l)
	return v.errs.err()
}

func (v *validator) log(l *Log) {
	v.oneOf("log.level", l.Level, LogLevels...)
	v.oneOf("log.format", l.Format, "json", "console")
}

func (v *validator) policy(at string, p *Policy) {
	v.oneOf(at+".reuse", string(p.Reuse), Reuses...)
	v.atLeast(at+".min_tokens", p.MinTokens, 1)
	v.share(at+".min_similarity", p.MinSimilarity)
	for i, kind := range p.Critical {
		name := fmt.Sprintf("%s.critical[%d]", at, i)
		v.oneOf(name, kind, "number", "negation", "name", "identifier")
		if slices.Contains(p.Critical[:i], kind) {
			v.fail(name, "%q stands here twice", kind)
		}
	}
	v.oneOf(at+".unrepaired", string(p.Unrepaired), "cold", "accept")
	v.tenant(at+".tenant", p.Tenant)
	v.positive(at+".time_budget", p.Budget)
	v.share(at+".repair_share", p.RepairShare)
	v.atLeast(at+".references", p.References, 1)
	if p.References > 64 {
		v.fail(at+".references", "is %d; want at most 64", p.References)
	}
	if !(p.Quality.KL >= 0 && p.Quality.KL <= math.MaxFloat32) {
		v.fail(at+".quality.kl", "is %v; want 0 for no target, or nats, as 0.03", p.Quality.KL)
	}
	v.atLeast(at+".followers", p.Followers, 0)
	v.atLeast(at+".critical_followers", p.CriticalFollowers, 0)
	v.atLeast(at+".seam", p.Seam, 0)
	v.atLeast(at+".agent_followers", p.AgentFollowers, 0)
	v.share(at+".agent_share_first", p.AgentShareFirst)
	v.share(at+".agent_share_last", p.AgentShareLast)
	v.share(at+".agent_attended", p.AgentAttended)
	if v.share(at+".retention", p.Retention); p.Retention == 0 {
		v.fail(at+".retention", "is 0; want more, up to 1 for all cells")
	}
	if p.AgentShareLast > p.AgentShareFirst {
		v.fail(at+".agent_share_last", "is %v; want at most agent_share_first, %v", p.AgentShareLast, p.AgentShareFirst)
	}
}

func (v *validator) tenant(at string, t Tenant) {
	switch t.Source {
	case "shared":
		if t.Name == "" {
			v.fail(at+".name", "is empty; want the tenant's name")
		}
	case "header":
		if !isToken(t.Name) {
			v.fail(at+".name", "%q is not a header's name; want the one that carries the tenant", t.Name)
		}
	case "api_key":
		if t.Name != "" {
			v.fail(at+".name", "%q has no effect where the source is api_key: the key is the tenant; leave it out", t.Name)
		}
	default:
		v.oneOf(at+".source", t.Source, "shared", "header", "api_key")
	}
}

// routes checks the routes; what a route only inherits is reported once, of the
// defaults.
func (v *validator) routes(routes []Route, inherited Errors) {
	names := map[string]int{}
	for i := range routes {
		r, at := &routes[i], fmt.Sprintf("routes[%d]", i)
		if first, ok := names[r.Name]; ok {
			v.fail(at+".name", "%q is the name of routes[%d] too", r.Name, first)
		} else {
			names[r.Name] = i
		}
		v.pattern(at+".match.path", r.Match.Path)
		if p := r.Match.Path; p != "" && p[0] != '/' && p[0] != '[' {
			v.fail(at+".match.path", "%q matches no path, for they all begin with a slash; want one like /v1/chat/completions", p)
		}
		v.pattern(at+".match.model", r.Match.Model)
		for name := range r.Match.Headers {
			if !isToken(name) {
				v.fail(at+".match.headers", "%q is not a header's name", name)
			}
		}
		own := validator{file: v.file, lines: v.lines}
		own.policy(at, &r.Policy)
		for _, e := range own.errs {
			same := func(d Error) bool {
				return d.Text == e.Text && strings.TrimPrefix(d.Path, "defaults") == strings.TrimPrefix(e.Path, at)
			}
			if !slices.ContainsFunc(inherited, same) {
				v.errs = append(v.errs, e)
			}
		}
	}
}

func (v *validator) pattern(at, p string) {
	if _, err := path.Match(p, ""); err != nil {
		v.fail(at, "%q is not a pattern: %v", p, err)
	}
}

func (v *validator) oneOf(path, value string, want ...string) {
	if !slices.Contains(want, value) {
		v.fail(path, "is %q; want one of %s", value, strings.Join(want, ", "))
	}
}

func (v *validator) share(path string, f float64) {
	if !(f >= 0 && f <= 1) {
		v.fail(path, "is %v; want 0 to 1", f)
	}
}

func (v *validator) atLeast(path string, n, least int) {
	if n < least {
		v.fail(path, "is %d; want at least %d", n, least)
	}
}

func (v *validator) positive(path string, d time.Duration) {
	if d <= 0 {
		v.fail(path, "is %v; want more than 0", d)
	}
}

func (v *validator) notNegative(path string, d time.Duration) {
	if d < 0 {
		v.fail(path, "is %v; want 0 or more", d)
	}
}

// isToken reports whether s can be the name of an HTTP header.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c > '~' || strings.IndexByte(`()<>@,;:\"/[]?={}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}
