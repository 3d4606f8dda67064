package launch

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/llamaserver"
)

// configured is a command whose user has a configuration file.
func configured(t *testing.T, text, line string, env ...string) *Command {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "llama.cpp"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "llama.cpp", "config.ini"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return &Command{Args: strings.Fields(line), Env: append(env, "XDG_CONFIG_HOME="+dir)}
}

// What the server makes of these was tried with b11549.
func TestConfigurationIsReadAsTheServerReadsIt(t *testing.T) {
	f := func(text string, o llamaserver.Option, want string) {
		t.Helper()
		if got, _ := configured(t, text, "llama-server").value(o); got != want {
			t.Errorf("%q: %s is %q, want %q", text, o.Name(), got, want)
		}
	}
	f("model = /a b.gguf ; c\n", llamaserver.Model, "/a b.gguf")
	f("model = \"a\"\n", llamaserver.Model, `"a"`)
	f("model = a\\\nport = 3\n", llamaserver.Model, `a\`)
	f("LLAMA_ARG_MODEL = a\nmodel = b\nm = c", llamaserver.Model, "b")
	f("host=a#b", llamaserver.Host, "a")
	f("LLAMA_API_KEY = k1,k2\n", llamaserver.APIKey, "k1,k2")
	f("api_key = a\n", llamaserver.APIKey, "")
	f("[*]\nport = 1\n[default]\nport = 2\n[other]\nport = 3\n", llamaserver.Port, "2")
	f("[default]\nport = 2\n[*]\nport = 1\n", llamaserver.Port, "2")
	f("port = 5\nport = 6\n", llamaserver.Port, "6")
	f("port = 5\n[default]\nhost = h\n", llamaserver.Port, "")
	f("# c\r\n \t; d\r\rport = 5 # five\n[ default ]\nport = 6\n", llamaserver.Port, "5")
	f("port =\n", llamaserver.Port, "")
}

// lines are configurations, and whether llama-server takes them.
var lines = []struct {
	text  string
	taken bool
}{
	{"port = 5\n", true},
	{"[default] ; c\nport=5 # c\n \t# c\r\n\r\nalias=", true},
	{"[a b]\nunknown.key-1 = x", true},
	{" port = 5\n", false},
	{"port 5\n", false},
	{"--port = 5\n", false},
	{"*.port = 5\n", false},
	{"[]\nport = 5\n", false},
	{"[default] x\n", false},
	{"\ufeffport = 5\n", false},
}

func TestConfigurationsAreTakenAsByTheServer(t *testing.T) {
	program, _ := lab.ServerCommand(t)
	for _, l := range lines {
		cmd := exec.Command(program, "--help")
		cmd.Env = append(os.Environ(), configured(t, l.text, "").Env...)
		if out, err := cmd.CombinedOutput(); (err == nil) != l.taken {
			t.Errorf("%q: llama-server ends with %v: %.200s", l.text, err, out)
		}
	}
}

// The server ends at such a file, and says so, which a refusal would hide.
func TestAConfigurationThatCannotBeReadIsLeftToTheServer(t *testing.T) {
	for _, l := range lines {
		c := configured(t, l.text, "llama-server")
		if err := c.Check(false); (err == nil) == l.taken {
			t.Errorf("%q: %v", l.text, err)
		}
	}
	c := configured(t, "", "llama-server")
	file := configFiles(c.Env)[1]
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(file, 0o700); err != nil { // as good as one that root alone may read
		t.Fatal(err)
	}
	if err := c.Check(false); err != nil {
		t.Error(err)
	}
}

func TestConfigurationMayNameTheModel(t *testing.T) {
	f := func(text, line, want string) {
		t.Helper()
		err := configured(t, text, line).Check(false)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q, %s: %v, want %q", text, line, err, want)
		}
	}
	f("model = x\n", "llama-server", "")
	f("[*]\nhf = a/b\n", "llama-server --models-dir /m", "")
	f("LLAMA_ARG_DOCKER_REPO = gemma3\n", "llama serve", "")
	f("gpt-oss-20b-default = 1\n", "llama-server", "")
	f("spec-default = 1\n", "llama-server", "names no model")
	f("port = 1\n", "llama-server", "names no model")
	f("[x]\nmodel = x\n", "llama-server", "names no model")
	f("models-dir = /m\n", "./start.sh", "--models-dir /m: a router")
	f("ssl-key-file = k\n", "llama-server -m x", "--ssl-key-file")
	f("api-prefix = /x\n", "llama-server -m x", "--api-prefix /x")
}

func TestConfigurationComesLast(t *testing.T) {
	const text = "host = 0.0.0.0\nport = 9000\napi-key = from-file\nslot-save-path = /slots\nno-cache-idle-slots = 0\ncram = 5\n"
	f := func(line, listen, key string, env ...string) {
		t.Helper()
		c := configured(t, text, line, env...)
		gotKey, err := c.APIKey()
		if err != nil || gotKey != key || c.SlotDir() != "/slots" {
			t.Errorf("%s: key %q, %v, slots %q, want %q, /slots", line, gotKey, err, c.SlotDir(), key)
		}
		c.Share(c.SlotDir())
		c.Separate()
		for _, name := range []string{llamaserver.IdleSlots.Env, llamaserver.CacheRAM.Env} {
			if v, set := lookup(c.Env, name); set {
				t.Errorf("%s: %s became %s, which the file says", line, name, v)
			}
		}
		place, err := c.Move()
		if err != nil || place.Listen != listen {
			t.Errorf("%s: listens on %q, %v, want %q", line, place.Listen, err, listen)
		}
		if host, _ := c.value(llamaserver.Host); host != serverHost {
			t.Errorf("%s: the server is left at %s", line, host)
		}
	}
	f("llama-server", "0.0.0.0:9000", "from-file")
	f("llama-server --port 1", "0.0.0.0:1", "from-env", "LLAMA_API_KEY=from-env")
	f("llama-server --host ::1 --api-key k", "[::1]:2", "k", "LLAMA_ARG_PORT=2")
}

func TestWhereConfigurationsAre(t *testing.T) {
	f := func(want string, env ...string) {
		t.Helper()
		if got := configFiles(env); !slices.Equal(got, []string{"/etc/llama.cpp/config.ini", want}) {
			t.Errorf("%v: %v, want %s", env, got, want)
		}
	}
	f("/x/llama.cpp/config.ini", "XDG_CONFIG_HOME=/x", "HOME=/h")
	f("/h/.config/llama.cpp/config.ini", "XDG_CONFIG_HOME=", "HOME=/h")
}
