package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/launch"
)

// both is the program with the server that it started.
type both struct {
	*program
	t          testing.TB
	url, admin string
}

// startBoth starts them with arguments for each and waits until what is asked can
// be shared.
func startBoth(t testing.TB, forServe []string, forServer ...string) *both {
	t.Helper()
	server, model := lab.ServerCommand(t)
	listen, admin := freeAddress(t), freeAddress(t)
	_, port, _ := net.SplitHostPort(listen)
	args := append([]string{"serve", "--admin", admin, "--library", "bin/libsemshare.so", "--min-tokens", "64"}, forServe...)
	args = append(args, "--", server, "-m", model, "-c", "4096", "-np", "2", "--port", port)
	b := &both{program: run(t, append(args, forServer...)...), t: t, url: "http://" + listen, admin: "http://" + admin}
	eventually(t, "it is ready", func() bool {
		select {
		case <-b.ended:
			t.Fatalf("it ended: %v", b.ProcessState)
		default:
		}
		return get(b.admin+"/readyz") == http.StatusOK
	})
	return b
}

func freeAddress(t testing.TB) string {
	t.Helper()
	port, err := lab.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// get returns the status, 0 where nobody answers.
func get(url string) int {
	resp, err := http.Get(url)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// complete returns the status and what the sidecar says that it did.
func (b *both) complete(prompt string) (int, string) {
	b.t.Helper()
	resp, err := http.Post(b.url+"/completion", "application/json", strings.NewReader(`{"n_predict":2,"prompt":`+strconv.Quote(prompt)+`}`))
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Header.Get("X-SemShareKV")
}

// server is the process id of the server that runs now.
func (b *both) server() int {
	b.t.Helper()
	pid, err := strconv.Atoi(b.find(`"pid":(\d+)`))
	if err != nil {
		b.t.Fatalf("no pid in the log: %v", err)
	}
	return pid
}

func (b *both) slotDir() string {
	b.t.Helper()
	dir := b.find(`"slot_dir":"([^"]+)"`)
	if dir == "" {
		b.t.Fatal("no slot directory in the log")
	}
	return dir
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

const story = `The mill stood at the bend of the river, where the water was quick enough to turn its wheel in all seasons but the driest.
The miller's daughter kept the accounts, because her father could not read, and kept them so well that the lord's steward stopped asking to see
them. In the spring the flood took the bridge, and for six weeks nobody came to the mill but a pedlar with a boat, who paid for his flour in
needles and news. He told them that the war was over, then that it was not, and then that nobody in the city could remember who had begun it.`

func TestServeStartsTheServerAndEndsWithIt(t *testing.T) {
	library, err := filepath.Abs("bin/libsemshare.so")
	if err != nil {
		t.Fatal(err)
	}
	b := startBoth(t, []string{"--agent", library})
	dir, first := b.slotDir(), b.server()
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("slot directory %s: %v, %v, want mode 0700", dir, st, err)
	}
	if maps, _ := os.ReadFile("/proc/" + strconv.Itoa(first) + "/maps"); !strings.Contains(string(maps), library) {
		t.Error("the agent's library is not loaded into the server")
	}
	if status, did := b.complete(story); status != http.StatusOK || !strings.HasPrefix(did, "cold") {
		t.Fatalf("status %d, %s", status, did)
	}
	eventually(t, "a similar prompt is shared", func() bool {
		status, did := b.complete(time.Now().Format(time.StampNano) + ". " + story)
		if status != http.StatusOK {
			t.Fatalf("status %d", status)
		}
		return strings.HasPrefix(did, "shared")
	})

	_ = syscall.Kill(first, syscall.SIGKILL)
	eventually(t, "another server was started", func() bool { return b.server() != first })
	eventually(t, "the sidecar answers again", func() bool { status, _ := b.complete("Hello."); return status == http.StatusOK })
	eventually(t, "the new server is tried out", func() bool { return strings.Count(string(b.output()), `"message":"sharing"`) == 2 })

	second := b.server()
	_ = b.Process.Signal(syscall.SIGTERM)
	if status := b.exit(); status != 0 {
		t.Errorf("exit status %d after SIGTERM, want 0", status)
	}
	if alive(first) || alive(second) {
		t.Error("a server outlives the program")
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is left behind: %v", dir, err)
	}
}

func TestServeDrainsBeforeTheServerEnds(t *testing.T) {
	b := startBoth(t, nil)
	endless := func() (int, error) {
		resp, err := http.Post(b.url+"/completion", "application/json", strings.NewReader(`{"n_predict":40,"ignore_eos":true,"stream":true,"prompt":"Count:"}`))
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		return strings.Count(string(text), "data: "), err
	}
	type answer struct {
		tokens int
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		n, err := endless()
		answers <- answer{n, err}
	}()
	eventually(t, "the server is at work", b.inFlight)
	_ = b.Process.Signal(syscall.SIGTERM)
	if a := <-answers; a.err != nil || a.tokens < 40 {
		t.Errorf("the answer broke off after %d tokens: %v", a.tokens, a.err)
	}
	if status := b.exit(); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
}

// inFlight tells whether the sidecar has a request under way.
func (b *both) inFlight() bool {
	resp, err := http.Get(b.admin + "/metrics")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return strings.Contains(string(text), "requests_in_flight 1\n")
}

func TestServeSecondSignalKills(t *testing.T) {
	b := startBoth(t, nil)
	dir, server := b.slotDir(), b.server()
	go func() {
		resp, err := http.Post(b.url+"/completion", "application/json", strings.NewReader(`{"n_predict":-1,"ignore_eos":true,"stream":true,"prompt":"Count:"}`))
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	}()
	eventually(t, "a request is under way", b.inFlight)
	_ = b.Process.Signal(syscall.SIGTERM)
	eventually(t, "it drains", func() bool { return strings.Contains(string(b.output()), `"draining"`) })
	time.Sleep(2 * again) // the same signal at once would count as one
	if !alive(server) {
		t.Fatal("the server did not wait for the request")
	}
	_ = b.Process.Signal(syscall.SIGTERM)
	b.exit()
	if alive(server) {
		t.Error("the server is alive")
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is left behind: %v", dir, err)
	}
}

func TestServeKilledTakesItsServerAlong(t *testing.T) {
	b := startBoth(t, nil)
	dir, server := b.slotDir(), b.server()
	defer os.RemoveAll(dir)
	_ = b.Process.Kill()
	eventually(t, "the server is gone", func() bool { return !alive(server) })
}

func TestServeEndsWhenTheServerCannotBeStarted(t *testing.T) {
	program, _ := lab.ServerCommand(t)
	f := func(want string, command ...string) {
		t.Helper()
		args := []string{"serve", "--admin", freeAddress(t), "--"}
		p := run(t, append(args, append(command, "--port", "0")...)...)
		if status := p.exit(); status != 1 {
			t.Errorf("%v: exit status %d, want 1", command, status)
		}
		if !strings.Contains(string(p.output()), want) {
			t.Errorf("%v: the output does not say %q", command, want)
		}
		if dir := p.find(`"slot_dir":"([^"]+)"`); dir != "" {
			if _, err := os.Stat(dir); !os.IsNotExist(err) {
				t.Errorf("%v: %s is left behind", command, dir)
			}
		}
	}
	f("cannot start /nowhere/llama-server", "/nowhere/llama-server", "-m", "x")
	f("ended before it was ready: exit status 1", program, "-m", "/nowhere/model.gguf")
	f("ended before it was ready: exit status 1", program, "-m", "x", "--no-such-option")
}

func TestServeBoundsTheBudgetByTheRoom(t *testing.T) {
	program, _ := lab.ServerCommand(t)
	dir := t.TempDir()
	p := run(t, "serve", "--admin", freeAddress(t), "--slot-dir", dir, "--budget", "900TiB", "--", program, "-m", "/nowhere/model.gguf", "--port", "0")
	p.exit()
	room, _, err := launch.Room(dir)
	if err != nil {
		t.Fatal(err)
	}
	if budget, _ := strconv.ParseInt(p.find(`"budget_bytes":(\d+)`), 10, 64); budget <= 0 || budget > room {
		t.Errorf("references may take %d bytes of a directory with room for %d", budget, room)
	}
}

func TestServeRefusesACommandThatContradictsIt(t *testing.T) {
	f := func(want string, args ...string) {
		t.Helper()
		p := run(t, append([]string{"serve"}, args...)...)
		if status := p.exit(); status != 1 || !strings.Contains(string(p.output()), want) {
			t.Errorf("%v: exit status %d, %s: want 1 and %q", args, status, p.output(), want)
		}
	}
	f("behind --", "llama-server")
	f("leave out one of them", "--backend", "http://127.0.0.1:1", "--", "llama-server", "-m", "x")
	f("leave out one of them", "--slot-dir", "/a", "--", "llama-server", "-m", "x", "--slot-save-path", "/b")
	f("--ssl-key-file", "--", "llama-server", "--ssl-key-file", "x")
	f("names no model", "--", "llama-server", "--port", "8080")
}

func TestServeRefusesAnAgentForAServerThatItDoesNotStart(t *testing.T) {
	p := run(t, "serve", "--backend", "http://127.0.0.1:1", "--slot-dir", t.TempDir(), "--check", "--agent", "/a.so")
	if status := p.exit(); status != 1 || !strings.Contains(string(p.output()), "LD_PRELOAD=/a.so") {
		t.Errorf("exit status %d, %s", status, p.output())
	}
}

func TestALogThatIsNoTerminalHasNoEscapes(t *testing.T) {
	p := run(t, "serve", "--backend", "http://"+freeAddress(t), "--slot-dir", t.TempDir(), "--listen", freeAddress(t), "--admin", freeAddress(t), "--log-format", "console")
	eventually(t, "it serves", func() bool { return strings.Contains(string(p.output()), "serving") })
	if strings.Contains(string(p.output()), "\x1b") {
		t.Errorf("%q", p.output())
	}
}

func TestServeListensWhereItIsToldOrWhereTheServerWould(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	f := func(want, inFile string, args ...string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(inFile), 0o600); err != nil {
			t.Fatal(err)
		}
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		s := addSettings(flags, "listen")
		if err := flags.Parse(append(args, "--config", file)); err != nil {
			t.Fatal(err)
		}
		command := &launch.Command{Args: []string{"true", "--port", "18999"}}
		_, put, err := arrange(command, &besideOptions{settings: s, agent: "off"})
		if err != nil {
			t.Fatal(err)
		}
		cfg := configs.Default()
		if put(cfg, "/slots"); cfg.Listen != want {
			t.Errorf("%q, %v: listen is %s, want %s", inFile, args, cfg.Listen, want)
		}
	}
	f("127.0.0.1:18999", "")
	f("127.0.0.1:8080", "", "--listen", "127.0.0.1:8080")
	f("127.0.0.1:8080", "listen: 127.0.0.1:8080")
	f("127.0.0.1:9000", "listen: 127.0.0.1:8080", "--listen", "127.0.0.1:9000")
}

// A configuration that keeps no tenants apart may do so once it is reloaded, when the
// server's own cache cannot be turned off any more.
func TestServeTurnsTheServersOwnCacheOffWhereAConfigurationIsGiven(t *testing.T) {
	f := func(want bool, args ...string) {
		t.Helper()
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		s := addSettings(flags, "listen")
		if err := flags.Parse(args); err != nil {
			t.Fatal(err)
		}
		command := &launch.Command{Args: []string{"true"}}
		if _, _, err := arrange(command, &besideOptions{settings: s, agent: "off"}); err != nil {
			t.Fatal(err)
		}
		if got := slices.Contains(command.Env, "LLAMA_ARG_CACHE_RAM=0"); got != want {
			t.Errorf("%v: the server's environment is %v", args, command.Env)
		}
	}
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f(false)
	f(true, "--config", file)
}

func TestServeCheckStartsAndMakesNothing(t *testing.T) {
	slots := filepath.Join(t.TempDir(), "slots")
	f := func(status int, want string, args ...string) {
		t.Helper()
		p := run(t, append([]string{"serve", "--check", "--slot-dir", slots}, args...)...)
		if got := p.exit(); got != status || !strings.Contains(string(p.output()), want) {
			t.Errorf("%v: exit status %d, %s: want %d and %q", args, got, p.output(), status, want)
		}
		if _, err := os.Stat(slots); !os.IsNotExist(err) {
			t.Errorf("%v: the slot directory was made: %v", args, err)
		}
	}
	f(0, "the configuration is valid", "--", "false", "-m", "x")
	f(1, "cannot start /nowhere/llama-server", "--", "/nowhere/llama-server", "-m", "x")
	f(1, "admin: ", "--admin", ":18999", "--", "false", "--port", "18999")
}
