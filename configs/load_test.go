package configs

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const base = "backend: {url: http://127.0.0.1:8081, slot_dir: /dev/shm/x}\n"

func TestParse(t *testing.T) {
	f := func(text string, want func(*Config)) {
		t.Helper()
		c, err := Parse("f.yaml", []byte(base+text), nil)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			return
		}
		w := Default()
		w.Backend.URL, w.Backend.SlotDir = "http://127.0.0.1:8081", "/dev/shm/x"
		want(w)
		if !reflect.DeepEqual(c, w) {
			t.Errorf("%q: have\n%+v\nwant\n%+v", text, c, w)
		}
	}
	t.Setenv("SEMSHARE_TEST_KEY", "k1")
	f("", func(*Config) {})
	f("# only a comment\n", func(*Config) {})
	f("store:\nroutes:\n", func(*Config) {})
	f("listen: ':0'\nadmin: ':0'", func(c *Config) { c.Listen, c.Admin = ":0", ":0" })
	f("limits: {body_bytes: 1KiB, idle_timeout: 200ms, connections: 16}", func(c *Config) {
		c.Limits.Body, c.Limits.Idle, c.Limits.Connections = 1024, 200*time.Millisecond, 16
	})
	f("store: {budget_bytes: 2000000, novelty: 1}", func(c *Config) { c.Store.Budget, c.Store.Novelty = 2e6, 1 })
	f("index: {redis: 'rediss://u:${SEMSHARE_TEST_KEY}@r:6379/1'}", func(c *Config) { c.Index.Redis = "rediss://u:k1@r:6379/1" })
	f("index: {redis: 'unix://:secret@/run/redis.sock?db=1'}", func(c *Config) { c.Index.Redis = "unix://:secret@/run/redis.sock?db=1" })
	f("defaults: {critical: [], reuse: off}", func(c *Config) { c.Defaults.Critical, c.Defaults.Reuse = []string{}, ReuseOff })
	f("defaults: {tenant: {source: api_key}}", func(c *Config) { c.Defaults.Tenant = Tenant{Source: "api_key"} })
	f("defaults: {tenant: {source: shared}}", func(c *Config) {})
	f("defaults: {quality: {kl: 0.02}}", func(c *Config) { c.Defaults.Quality.KL = 0.02 })
}

func TestRoutesStartOutAsTheDefaults(t *testing.T) {
	c, err := Parse("f", []byte(base+`
routes:
  - name: a
    match: {path: /infill}
    seam: 7
    critical: [number]
    tenant: {source: header, name: X-Tenant}
  - match: {path: /v1/*, model: m, headers: {X-A: "1"}}
defaults: {seam: 9, followers: 3}
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	a, b := c.Routes[0], c.Routes[1]
	if a.Name != "a" || a.Seam != 7 || a.Followers != 3 || a.Tenant != (Tenant{"header", "X-Tenant"}) || !slices.Equal(a.Critical, []string{"number"}) {
		t.Errorf("route a is %+v", a)
	}
	if b.Name != "route-2" || !reflect.DeepEqual(b.Policy, c.Defaults) || b.Match.Headers["X-A"] != "1" {
		t.Errorf("second route is %+v", b)
	}
	if b.Critical[0] = "x"; c.Defaults.Critical[0] == "x" {
		t.Error("a route shares memory with the defaults")
	}
}

// TestARouteRepeatsTheSource: the name stays as long as it is one of that source.
func TestARouteRepeatsTheSource(t *testing.T) {
	f := func(defaults, route string, want Tenant) {
		t.Helper()
		c, err := Parse("f", []byte(base+"defaults: {tenant: "+defaults+"}\nroutes: [{tenant: "+route+"}]"), nil)
		if err != nil {
			t.Errorf("%s, %s: %v", defaults, route, err)
		} else if got := c.Routes[0].Tenant; got != want {
			t.Errorf("%s, %s: %+v, want %+v", defaults, route, got, want)
		}
	}
	f("{source: header, name: X-A}", "{source: header}", Tenant{"header", "X-A"})
	f("{name: team}", "{source: shared}", Tenant{"shared", "team"})
	f("{source: header, name: X-A}", "{source: shared}", Tenant{"shared", "default"})
	f("{source: header, name: X-A}", "{source: api_key}", Tenant{"api_key", ""})
	f("{source: header, name: X-A}", "{name: X-B}", Tenant{"header", "X-B"})
}

// TestAKeyIsOne: what no header can carry is refused, and not shown.
func TestAKeyIsOne(t *testing.T) {
	f := func(key string, good bool) {
		t.Helper()
		c := Default()
		c.Backend.URL, c.Backend.SlotDir, c.Backend.APIKey = "http://h:1", "/d", key
		err := c.Validate()
		if good != (err == nil) || err != nil && (!strings.HasPrefix(err.Error(), "backend.api_key: ") || strings.Contains(err.Error(), "s3cret")) {
			t.Errorf("%q: %v", key, err)
		}
	}
	f("s3cret", true)
	f("s3cret with spaces", true)
	f("s3cret\nother", false)
	f("s3cret\x00", false)
	f("s3cret\x7f", false)

	secret := func(text string) {
		t.Helper()
		t.Setenv("SEMSHARE_TEST_KEY", text)
		c, err := Parse("f", []byte("backend: {url: http://h:1, slot_dir: /d, api_key: '${SEMSHARE_TEST_KEY}'}"), nil)
		if err != nil || c.Backend.APIKey != "s3cret" {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
	secret("s3cret\r\n") // that was made from a file
	secret("s3cret, another\n")
}

func TestEveryErrorIsReportedWithItsLine(t *testing.T) {
	_, err := Parse("f.yaml", []byte(`listen: nowhere
backend:
  url: ftp://u:secret@h/
  slotdir: /x
limits:
  body_bytes: big
  idle_timeout: 5
defaults:
  min_similarity: 2
  seam: 1.5
routes:
  - name: a
    reuse: fuzy
    match: {model: m}
  - name: a
    tenant:
      source: header
    match:
      path: "[a"
store: 3
`), nil)
	if err == nil {
		t.Fatal("no error")
	}
	want := []string{
		"f.yaml:1: listen: ", "f.yaml:2: backend.slot_dir: is missing", "f.yaml:3: backend.url: ",
		`f.yaml:4: backend: unknown option "slotdir"; want one of url, slot_dir`, "f.yaml:6: limits.body_bytes: ",
		"f.yaml:7: limits.idle_timeout: ", "f.yaml:9: defaults.min_similarity: is 2; want 0 to 1",
		"f.yaml:10: defaults.seam: ", `f.yaml:13: routes[0].reuse: is "fuzy"; want one of off, exact, fuzzy`,
		"f.yaml:15: routes[1].name: ", "f.yaml:16: routes[1].tenant.name: ", "f.yaml:19: routes[1].match.path: ",
		"f.yaml:20: store: want a mapping",
	}
	have := strings.Split(err.Error(), "\n")
	for i := range max(len(want), len(have)) {
		if i >= len(want) || i >= len(have) || !strings.HasPrefix(have[i], want[i]) {
			t.Fatalf("line %d differs; have\n%s\nwant\n%s", i, err, strings.Join(want, "\n"))
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Error("the error shows a password")
	}
}

func TestBadFiles(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		_, err := Parse("f.yaml", []byte(text), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", text, err, want)
		}
	}
	f("listen: [", "f.yaml:2: ")
	f("a: b\n\tc: d", "f.yaml:2: ")
	f(base+"---\nlisten: ':1'", "f.yaml:2: a second document")
	f(base+"listen: ':1'\nlisten: ':2'", "f.yaml:3: ")
	f("- a", "f.yaml:1: want a mapping")
	f("text", "f.yaml:1: want a mapping")
	f("backend: &a {url: *a}", "f.yaml:1: ")
	f("backend: {api_key: '${SEMSHARE_NOT_SET}'}", `"SEMSHARE_NOT_SET" is not set`)
	f("backend: {api_key: 's3cret${X'}", "f.yaml:1: backend.api_key: has ${ without }; want ${NAME}")
	f("listen: ':9000'\nadmin: '0.0.0.0:9000'", "admin: \"0.0.0.0:9000\" is where clients are listened to")
	f("", "backend.url: is missing")
	f("backend: {url: '127.0.0.1:8081'}", `"127.0.0.1:8081" is not a base URL; want one like http://`)
	f("backend: {url: 'http://u:secret@h:1/v1/'}", `ends in /v1, which is a part of requests' paths; want it without, as http://u:xxxxx@h:1`)
	f("backend: {url: 'u:secret@h:1'}", `"(unreadable URL)" is not a base URL`)
	f(base+"index: {redis: 'http://h'}", "not a Redis URL")
	f(base+"index: {redis: 'unix://run/redis.sock'}", "not a Redis URL; want one that begins with redis://, ")
	f(base+"index: {redis: 'unix:redis.sock'}", "not a Redis URL")
	f(base+"index: {redis: 'redis://localhost:6379/abc'}", "f.yaml:2: index.redis: cannot be used: invalid database number")
	f(base+"defaults: {min_similarity: nan}", "want 0 to 1")
	f(base+"defaults: {time_budget: -1s}", "want more than 0")
	f(base+"defaults: {tenant: {source: api_key, name: foo}}", `defaults.tenant.name: "foo" has no effect`)
	f(base+"routes: [{match: {path: v1/completions}}]", `routes[0].match.path: "v1/completions" matches no path`)
	f(base+"routes:\n- match: {path: /a}\n-\n", "f.yaml:4: routes[1]: is empty; want a route")
	f(base+"routes:\n- reuse: off\n- match: {path: /a}", "f.yaml:3: routes[0]: has no match and fits every request")
}

func TestTheBackendIsNotTheSidecarItself(t *testing.T) {
	f := func(listen, backend string, same bool) {
		t.Helper()
		c := Default()
		c.Listen, c.Backend.URL, c.Backend.SlotDir = listen, backend, "/d"
		err := c.Validate()
		if got := err != nil && strings.Contains(err.Error(), "backend.url: ") && strings.Contains(err.Error(), "the sidecar's own address"); got != same {
			t.Errorf("listen %s, backend %s: %v", listen, backend, err)
		}
	}
	f("127.0.0.1:8080", "http://127.0.0.1:8080", true)
	f("127.0.0.1:8080", "http://localhost:8080/", true)
	f("127.0.0.1:8080", "http://[::1]:8080", true)
	f(":8080", "http://127.0.0.1:8080", true)
	f("0.0.0.0:80", "http://localhost", true)
	f("10.0.0.1:8080", "http://10.0.0.1:8080", true)
	f("llama.local:8080", "http://LLAMA.local:8080", true)
	f("127.0.0.1:8000", "http://127.0.0.1:8090", true) // admin
	f("127.0.0.1:8080", "http://127.0.0.1:8081", false)
	f("0.0.0.0:8080", "http://10.0.0.1:8080", false)
	f("127.0.0.1:8080", "http://llama:8080", false)
	f("127.0.0.1:0", "http://127.0.0.1:0", false)
}

func TestFlagsWinOverTheFile(t *testing.T) {
	c, err := Parse("f", []byte("backend: {url: http://a, slot_dir: /a}"), func(c *Config) { c.Backend.URL = "http://b" })
	if err != nil {
		t.Fatal(err)
	}
	if c.Backend.URL != "http://b" || c.Backend.SlotDir != "/a" {
		t.Errorf("backend is %+v", c.Backend)
	}
	c, err = Parse("f", []byte(base+"routes: [{name: a, match: {path: /a}}, {name: b, seam: 2}]"), func(c *Config) { c.Defaults.Seam = 5 })
	if err != nil {
		t.Fatal(err)
	}
	if c.Routes[0].Seam != 5 || c.Routes[1].Seam != 2 {
		t.Errorf("seams are %d and %d; want the flag's 5, and the route's own 2", c.Routes[0].Seam, c.Routes[1].Seam)
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml"), nil); err == nil {
		t.Error("a missing file is no error")
	}
}

func TestSize(t *testing.T) {
	f := func(s string, want int64) {
		t.Helper()
		n, err := ParseSize(s)
		if err != nil || n != want {
			t.Errorf("%q is %d, %v; want %d", s, n, err, want)
		}
		if back, err := ParseSize(FormatSize(n)); err != nil || back != n {
			t.Errorf("%d is written %q and read %d", n, FormatSize(n), back)
		}
	}
	f("0", 0)
	f("17", 17)
	f("64MiB", 64<<20)
	f("1.5 GiB", 3<<29)
	f("2GB", 2e9)
	f("10B", 10)
	bad := func(s string) {
		t.Helper()
		if n, err := ParseSize(s); err == nil {
			t.Errorf("%q is %d, want an error", s, n)
		}
	}
	bad("")
	bad("GiB")
	bad("-1")
	bad("1e30")
	bad("9999999999GiB")
	bad("NaN")
	bad("5 apples")
}

func TestRestartNeeded(t *testing.T) {
	a, b := Default(), Default()
	b.Defaults.Seam++
	b.Limits.Body++
	b.Limits.Drain++
	if n := a.RestartNeeded(b); n != nil {
		t.Errorf("what is read anew for each request, and at the end, needs a restart: %v", n)
	}
	b.Store.Budget++
	b.Listen = ":1"
	b.Limits.SlotWait++
	if n := a.RestartNeeded(b); !slices.Equal(n, []string{"listen", "limits.slot_wait", "store"}) {
		t.Errorf("restart needed for %v, want listen, limits.slot_wait and store", n)
	}
}

func FuzzParse(f *testing.F) {
	example, err := os.ReadFile("semsharekv.example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	f.Add([]byte(base + "routes: [{name: a, tenant: {source: header}}]"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("f", text, nil)
		if (c == nil) == (err == nil) {
			t.Fatalf("config %v and error %v", c, err)
		}
		if err == nil && c.Validate() != nil {
			t.Fatalf("accepted, but %v", c.Validate())
		}
	})
}

func TestApart(t *testing.T) {
	f := func(text string, want bool) {
		t.Helper()
		c, err := Parse("f.yaml", []byte("backend: {url: http://a:1, slot_dir: /s}\n"+text), func(*Config) {})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Apart(); got != want {
			t.Errorf("%s: apart is %v, want %v", text, got, want)
		}
	}
	f("", false)
	f("defaults: {tenant: {source: shared, name: a}}\nroutes: [{match: {path: /a}}]", false)
	f("routes: [{match: {path: /a}, reuse: off}]", false)
	f("defaults: {tenant: {source: api_key}}", true)
	f("routes: [{match: {path: /a}, tenant: {source: header, name: X-A}}]", true)
	f("routes: [{match: {path: /a}, tenant: {name: b}}]", true)
}

// The lists that other packages offer are those of the schema.
func TestValuesAreThoseOfTheTags(t *testing.T) {
	f := func(of any, field string, values []string) {
		t.Helper()
		sf, _ := reflect.TypeOf(of).FieldByName(field)
		want := "enum=" + strings.Join(values, ",enum=")
		if got := sf.Tag.Get("jsonschema"); got != want {
			t.Errorf("%T.%s: tag %q, want %q", of, field, got, want)
		}
	}
	f(Log{}, "Level", LogLevels)
	f(Backend{}, "Way", Ways)
	f(Policy{}, "Reuse", Reuses)
}

func TestASlotDirectoryIsNoURL(t *testing.T) {
	_, err := Parse("f.yaml", []byte("backend: {url: http://a:1, slot_dir: http://b:2}\n"), nil)
	if err == nil || !strings.Contains(err.Error(), `backend.slot_dir: is the URL "http://b:2"; want a directory`) {
		t.Errorf("got %v", err)
	}
}
