// Package lab starts the real things that tests and the demo run against: an
// unmodified llama-server with a small real model, and a redis-server. It is no
// part of the product.
package lab

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

//go:embed setup
var setupScript string

//go:embed llama_server.py
var launcher string

//go:embed llama_cli.py
var commandLine string

// Tools are the programs that setup installs.
type Tools struct {
	Python string // interpreter that has xllamacpp
	Model  string // SmolLM2-135M-Instruct, GGUF
}

var setup struct {
	sync.Mutex
	tools *Tools
}

// Setup installs the tools, once per machine; the first time it loads some
// 130 MB. Progress goes to w. Where the environment names a server and a model of
// one's own, nothing is installed.
func Setup(ctx context.Context, w io.Writer) (*Tools, error) {
	setup.Lock()
	defer setup.Unlock()
	if setup.tools != nil {
		return setup.tools, nil
	}
	if model := os.Getenv(ownModel); model != "" && os.Getenv(ownServer) != "" {
		setup.tools = &Tools{Model: model}
		return setup.tools, nil
	}
	out, err := runScript(ctx, setupScript, w)
	if err != nil {
		return nil, fmt.Errorf("cannot install the test backend: %w", err)
	}
	lines := strings.Split(out, "\n")
	if len(lines) != 2 {
		return nil, fmt.Errorf("setup of the test backend printed %q, want the Python and the model", out)
	}
	setup.tools = &Tools{Python: lines[0], Model: lines[1]}
	return setup.tools, nil
}

// runScript runs a shell script and returns what it printed. Progress goes to w; an error
// has the end of it.
func runScript(ctx context.Context, script string, w io.Writer) (string, error) {
	cmd := exec.CommandContext(ctx, "sh", "-s")
	cmd.Stdin = strings.NewReader(script)
	var last bytes.Buffer
	cmd.Stderr = io.MultiWriter(w, &last)
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, tail(last.Bytes(), 2000))
	}
	return strings.TrimSpace(string(out)), nil
}

// Command makes a program named llama-server in dir, for what starts one by
// itself: it takes llama-server's own options and environment.
func (t *Tools) Command(dir string) (string, error) {
	if program := os.Getenv(ownServer); program != "" {
		return filepath.Abs(program)
	}
	script := filepath.Join(dir, "llama_cli.py")
	if err := os.WriteFile(script, []byte(commandLine), 0o600); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "llama-server")
	text := fmt.Sprintf("#!/bin/sh\nexec '%s' '%s' \"$@\"\n", t.Python, script)
	return path, os.WriteFile(path, []byte(text), 0o700)
}

// BackendOptions say how llama-server is started. The zero value is a server
// with two slots of 4,096 tokens each on the small model.
type BackendOptions struct {
	Model           string // GGUF file; empty: the small model
	Context         int    // tokens of all slots together; 0: 8192
	Slots           int    // 0: 2
	Unified         bool   // --kv-unified
	CacheReuse      int    // --cache-reuse
	TypeK, TypeV    string // f16, q8_0, ...; empty: f16
	FlashAttention  string // on, off, auto; empty: auto
	CacheIdleSlots  bool   // the server's default is on; sharing wants it off
	NoRAMCache      bool   // --cache-ram 0
	NoPromptCache   bool   // --no-cache-prompt
	Threads         int    // 0: the server's choice
	Sleep           int    // --sleep-idle-seconds; 0: never
	APIKey          string
	ChatTemplate    string   // Jinja; empty: the model's own
	Preload         string   // a library for LD_PRELOAD
	LoRA            string   // an adapter's GGUF file
	Draft           string   // a draft model's GGUF file
	RoPE            []string // --rope-... and --yarn-... options
	SlotDir         string   // empty: a new one, removed at the end
	Progress        io.Writer
	StartupDeadline time.Duration // 0: two minutes
}

// Backend is a running llama-server.
type Backend struct {
	URL     string
	SlotDir string
	Model   string
	Log     string // file with the server's output

	tools   *Tools
	o       BackendOptions
	port    int
	scratch string

	mu   sync.Mutex
	cmd  *exec.Cmd
	in   io.Closer
	done chan struct{}
}

// Start runs a llama-server and returns when it answers: the one that the environment
// names in SEMSHARE_LLAMA_SERVER, or xllamacpp's.
func Start(ctx context.Context, o BackendOptions) (*Backend, error) {
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	tools, err := Setup(ctx, o.Progress)
	if err != nil {
		return nil, err
	}
	return start(ctx, tools, o)
}

func start(ctx context.Context, tools *Tools, o BackendOptions) (*Backend, error) {
	scratch, err := os.MkdirTemp(sharedMemory(), "semsharekv-lab-")
	if err != nil {
		return nil, err
	}
	b := &Backend{tools: tools, o: o, scratch: scratch, Model: o.Model, SlotDir: o.SlotDir, Log: filepath.Join(scratch, "llama-server.log")}
	if b.Model == "" {
		b.Model = tools.Model
	}
	if b.SlotDir == "" {
		b.SlotDir = filepath.Join(scratch, "slots")
		if err := os.Mkdir(b.SlotDir, 0o700); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(scratch, "llama_server.py"), []byte(launcher), 0o600); err != nil {
		return nil, err
	}
	if b.port, err = FreePort(); err != nil {
		return nil, err
	}
	b.URL = "http://127.0.0.1:" + strconv.Itoa(b.port)
	if err := b.Launch(ctx); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// Launch starts the server again after Stop or Kill, on the same port and slot
// directory, and waits until it answers.
func (b *Backend) Launch(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cmd != nil {
		return errors.New("llama-server is already running")
	}
	log, err := os.OpenFile(b.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := b.command()
	cmd.Stdout, cmd.Stderr = log, log
	if b.o.Preload != "" {
		// In front of what is there, which is not ours to replace.
		cmd.Env = append(os.Environ(), strings.TrimSuffix("LD_PRELOAD="+b.o.Preload+":"+os.Getenv("LD_PRELOAD"), ":"))
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot start llama-server: %w", err)
	}
	done := make(chan struct{})
	go func() {
		cmd.Wait()
		close(done)
	}()
	b.cmd, b.in, b.done = cmd, in, done
	if err := b.wait(ctx); err != nil {
		b.end(true)
		text, _ := os.ReadFile(b.Log)
		return fmt.Errorf("llama-server on %s did not come up: %w\n%s", b.URL, err, tail(text, 4000))
	}
	return nil
}

// Variables that name what to use in place of what setup installs: a llama-server, such as
// one that computes on a GPU, a small model, and the folder of llama.cpp's shared libraries.
const (
	ownServer    = "SEMSHARE_LLAMA_SERVER"
	ownModel     = "SEMSHARE_SMALL_MODEL"
	ownLibraries = "SEMSHARE_LLAMA_LIBRARIES"
)

func (b *Backend) command() *exec.Cmd {
	program := os.Getenv(ownServer)
	if program == "" {
		return exec.Command(b.tools.Python, append([]string{filepath.Join(b.scratch, "llama_server.py")}, b.args()...)...)
	}
	args := append(b.args(), "--metrics", "--no-warmup")
	if !b.o.CacheIdleSlots {
		args = append(args, "--no-cache-idle-slots")
	}
	return exec.Command(program, args...)
}

// args are the options by llama-server's names; what is left to the server is left out.
func (b *Backend) args() []string {
	o := b.o
	args := []string{
		"--model", b.Model,
		"--port", strconv.Itoa(b.port),
		"--slot-save-path", b.SlotDir,
		"--ctx-size", strconv.Itoa(or(o.Context, 8192)),
		"--parallel", strconv.Itoa(or(o.Slots, 2)),
		"--cache-reuse", strconv.Itoa(o.CacheReuse),
		"--cache-type-k", or(o.TypeK, "f16"),
		"--cache-type-v", or(o.TypeV, "f16"),
		"--flash-attn", or(o.FlashAttention, "auto"),
	}
	if o.Threads > 0 {
		args = append(args, "--threads", strconv.Itoa(o.Threads))
	}
	if o.Sleep > 0 {
		args = append(args, "--sleep-idle-seconds", strconv.Itoa(o.Sleep))
	}
	if o.APIKey != "" {
		args = append(args, "--api-key", o.APIKey)
	}
	if o.Unified {
		args = append(args, "--kv-unified")
	}
	if o.CacheIdleSlots {
		args = append(args, "--cache-idle-slots")
	}
	if o.ChatTemplate != "" {
		args = append(args, "--chat-template", o.ChatTemplate)
	}
	if o.LoRA != "" {
		args = append(args, "--lora", o.LoRA)
	}
	if o.Draft != "" {
		args = append(args, "--model-draft", o.Draft)
	}
	args = append(args, o.RoPE...)
	if o.NoPromptCache {
		args = append(args, "--no-cache-prompt")
	}
	if o.NoRAMCache {
		args = append(args, "--cache-ram", "0")
	}
	return args
}

func (b *Backend) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, or(b.o.StartupDeadline, 2*time.Minute))
	defer cancel()
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		if resp, err := client.Get(b.URL + "/health"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-b.done:
			return errors.New("it ended")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Stop ends the server in order; Launch starts it again.
func (b *Backend) Stop() { b.locked(false) }

// Kill ends the server as kill -9 does; Launch starts it again.
func (b *Backend) Kill() { b.locked(true) }

// Restart stops the server and starts it again with empty slots.
func (b *Backend) Restart(ctx context.Context) error {
	b.Stop()
	return b.Launch(ctx)
}

// Pid is the server's process id, 0 when it is not running.
func (b *Backend) Pid() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cmd == nil {
		return 0
	}
	return b.cmd.Process.Pid
}

// Close stops the server for good and removes what it left.
func (b *Backend) Close() {
	b.Stop()
	os.RemoveAll(b.scratch)
}

func (b *Backend) locked(kill bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end(kill)
}

// end waits for the process; a server that does not end within 10 s of being
// asked is killed.
func (b *Backend) end(kill bool) {
	if b.cmd == nil {
		return
	}
	b.in.Close()
	if !kill {
		b.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-b.done:
		case <-time.After(10 * time.Second):
		}
	}
	b.cmd.Process.Kill()
	<-b.done
	b.cmd, b.in, b.done = nil, nil, nil
}

// FreePort returns a TCP port on the loopback address that was free a moment
// ago.
func FreePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port, nil
}

// sharedMemory is the folder for slot files: memory where there is some, for
// that is where they belong.
func sharedMemory() string {
	if f, err := os.Stat("/dev/shm"); err == nil && f.IsDir() {
		return "/dev/shm"
	}
	return ""
}

func tail(b []byte, n int) []byte {
	if len(b) > n {
		b = b[len(b)-n:]
	}
	return bytes.TrimSpace(b)
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
