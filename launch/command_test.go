package launch

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/semsharekv/semsharekv/internal/llamaserver"
)

func command(line string, env ...string) *Command {
	return &Command{Args: strings.Fields(line), Env: env, files: &config{}} // whatever this machine has
}

func TestMoveTakesTheServersPlace(t *testing.T) {
	f := func(c *Command, want string) {
		t.Helper()
		p, err := c.Move()
		if err != nil {
			t.Fatal(err)
		}
		if p.Listen != want {
			t.Errorf("%v: the sidecar listens on %s, want %s", c, p.Listen, want)
		}
		u, err := url.Parse(p.URL)
		if err != nil {
			t.Fatal(err)
		}
		g := func(o llamaserver.Option, want string) {
			t.Helper()
			if got, _ := c.value(o); got != want {
				t.Errorf("%v: %s is %q, want %q", c, o.Name(), got, want)
			}
			if _, left := lookup(c.Env, o.Env); left {
				t.Errorf("%v: %s is left in the environment", c, o.Env)
			}
		}
		g(llamaserver.Host, u.Hostname())
		g(llamaserver.Port, u.Port())
		if n := strings.Count(strings.Join(c.Args, " "), "--port"); n != 1 {
			t.Errorf("%v: --port is given %d times", c.Args, n)
		}
	}
	f(command("llama-server -m x"), "127.0.0.1:8080")
	f(command("llama-server --port 9000 -m x"), "127.0.0.1:9000")
	f(command("llama-server --port 1 --host 0.0.0.0 --port 9000"), "0.0.0.0:9000")
	f(command("llama-server", "LLAMA_ARG_PORT=9001", "LLAMA_ARG_HOST=::1"), "[::1]:9001")
	f(command("llama-server --host 127.0.0.1,::1"), "127.0.0.1:8080")
	f(command("llama-server --host 192.0.2.1,0.0.0.0"), ":8080")
	f(command("llama-server --host 192.0.2.1,192.0.2.2"), "")
	f(command("llama-server --host 0.0.0.0,::"), ":8080")
	f(command("llama-server --host [::1]"), "[::1]:8080")
	f(command("llama serve -m x --port 9000"), "127.0.0.1:9000")
	f(command("nice -n 5 llama-server --port 9000", "LLAMA_ARG_PORT=9001"), "127.0.0.1:9000")
}

// There the server listens on AIP_HTTP_PORT, whatever --port says.
func TestMoveOnVertexAI(t *testing.T) {
	f := func(c *Command, want string) {
		t.Helper()
		p, err := c.Move()
		if err != nil {
			t.Fatal(err)
		}
		port, _ := lookup(c.Env, llamaserver.VertexPort)
		if p.Listen != want || p.URL != "http://127.0.0.1:"+port {
			t.Errorf("%v: the sidecar listens on %s, want %s; the server on %s, is told %q", c, p.Listen, want, p.URL, port)
		}
	}
	f(command("llama-server --port 9000", "AIP_MODE=PREDICTION"), "127.0.0.1:8080")
	f(command("llama-server --host 0.0.0.0", "AIP_MODE=PREDICTION", "AIP_HTTP_PORT="), "0.0.0.0:8080")
	f(command("llama-server --port 9000", "AIP_MODE=PREDICTION", "AIP_HTTP_PORT=7080"), "127.0.0.1:7080")
	c := command("llama-server --port 9000", "AIP_MODE=TRAINING", "AIP_HTTP_PORT=7080")
	p, err := c.Move()
	if port, _ := lookup(c.Env, llamaserver.VertexPort); err != nil || p.Listen != "127.0.0.1:9000" || port != "7080" {
		t.Errorf("elsewhere: listens on %s, AIP_HTTP_PORT %s, %v", p.Listen, port, err)
	}
}

func TestShareRespectsWhatTheUserSaid(t *testing.T) {
	f := func(c *Command, idle string) {
		t.Helper()
		c.Share("/slots")
		if got := c.SlotDir(); got != "/slots" {
			t.Errorf("%v: slot directory %q", c, got)
		}
		if got, _ := lookup(c.Env, llamaserver.IdleSlots.Env); got != idle {
			t.Errorf("%v: %s is %q, want %q", c, llamaserver.IdleSlots.Env, got, idle)
		}
	}
	f(command("llama-server -m x"), "0")
	f(command("llama-server --cache-idle-slots"), "")
	f(command("llama-server --cache_idle_slots --slot_save_path /slots"), "")
	f(command("llama-server --no-cache-idle-slots"), "")
	f(command("llama-server", "LLAMA_ARG_CACHE_IDLE_SLOTS=1"), "1")
	f(command("llama-server", "LLAMA_ARG_NO_CACHE_IDLE_SLOTS=0"), "") // which says no
}

func TestSeparateRespectsWhatTheUserSaid(t *testing.T) {
	f := func(c *Command, want string) {
		t.Helper()
		c.Separate()
		if got, _ := lookup(c.Env, llamaserver.CacheRAM.Env); got != want {
			t.Errorf("%v: %s is %q, want %q", c, llamaserver.CacheRAM.Env, got, want)
		}
	}
	f(command("llama-server -m x"), "0")
	f(command("llama-server --cache-ram 100"), "")
	f(command("llama-server -cram 4096"), "")
	f(command("llama-server", "LLAMA_ARG_CACHE_RAM=100"), "100")
}

func TestAPIKeyIsOneThatTheServerTakes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte("# ours\n\nfrom-file\nother\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(c *Command, want string) {
		t.Helper()
		if got, err := c.APIKey(); err != nil || got != want {
			t.Errorf("%v: key %q, %v, want %q", c, got, err, want)
		}
	}
	f(command("llama-server"), "")
	f(command("llama-server --api-key a,b"), "a")
	f(command("llama-server", "LLAMA_API_KEY=e"), "e")
	f(command("llama-server --api-key-file "+file), "from-file")
	if _, err := command("llama-server --api-key-file /nowhere").APIKey(); err == nil {
		t.Error("a key file that cannot be read is no error")
	}
}

func TestCheckRefusesByName(t *testing.T) {
	f := func(c *Command, want string) {
		t.Helper()
		if err := c.Check(false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v does not name %s", c, err, want)
		}
	}
	f(command(""), "llama-server -m")
	f(command("llama-server --ssl-key-file k --ssl-cert-file c"), "--ssl-key-file")
	f(command("llama-server", "LLAMA_ARG_API_PREFIX=/x"), "--api-prefix")
	f(command("llama-server --host /run/x.sock"), "--host")
	f(command("llama-server --host 192.0.2.1,192.0.2.2"), "want --listen")
	if err := command("llama-server -m x").Check(false); err != nil {
		t.Error(err)
	}
	if err := command("llama-server -m x --host 192.0.2.1,192.0.2.2").Check(true); err != nil {
		t.Errorf("with an address of the sidecar's own: %v", err)
	}
}

func TestPreloadGoesBehindWhatIsThere(t *testing.T) {
	library := filepath.Join(t.TempDir(), "lib.so")
	if err := os.WriteFile(library, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := command("llama-server", "LD_PRELOAD=/first.so", "A=b")
	if err := c.Preload(library); err != nil {
		t.Fatal(err)
	}
	if want := []string{"A=b", "LD_PRELOAD=/first.so:" + library}; !slices.Equal(c.Env, want) {
		t.Errorf("environment %v, want %v", c.Env, want)
	}
	if err := c.Preload("/nowhere/lib.so"); !os.IsNotExist(err) {
		t.Errorf("a library that is not there: %v", err)
	}
	if err := c.Preload("/a b.so"); err == nil {
		t.Error("a path with a space in it is taken")
	}
}

func TestFreePortIsFree(t *testing.T) {
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(serverHost, port))
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
}

func TestKeysAreNotShown(t *testing.T) {
	f := func(line, want string) {
		t.Helper()
		c := command(line)
		if got := strings.Join(c.shown(), " "); got != want {
			t.Errorf("%s is shown, want %s", got, want)
		}
		if got := strings.Join(c.Args, " "); got != line {
			t.Errorf("the command itself became %s", got)
		}
	}
	f("llama-server -m model.gguf --api-key secret --api_key secret,other --port 1",
		"llama-server -m model.gguf --api-key (withheld) --api_key (withheld) --port 1")
	f("llama-server --hf-token secret -hft secret -hf a/b", "llama-server --hf-token (withheld) -hft (withheld) -hf a/b")
	f("llama-server --api_key=secret --hf-token=secret", "llama-server --api_key=(withheld) --hf-token=(withheld)")
	f("env HF_TOKEN=secret LLAMA_API_KEY=secret llama-server", "env HF_TOKEN=(withheld) LLAMA_API_KEY=(withheld) llama-server")
	f("llama-server --api-key", "llama-server --api-key")
}
