package lab

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// Redis is a running redis-server that keeps nothing on disk.
type Redis struct {
	URL  string
	Addr string

	t    testing.TB
	args []string
	cmd  *exec.Cmd
}

// StartRedis runs a redis-server with the further arguments until the test
// ends. Where there is none the rules of StartBackend hold.
func StartRedis(t testing.TB, args ...string) *Redis {
	t.Helper()
	port, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	r := &Redis{URL: "redis://" + addr, Addr: addr, t: t,
		args: append([]string{"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir()}, args...)}
	if _, err := exec.LookPath("redis-server"); err != nil {
		missing(t, fmt.Errorf("redis-server is not installed (Debian: redis-server): %w", err))
	}
	r.Start()
	t.Cleanup(r.Kill)
	return r
}

// Start runs the server again after Kill, on the same port and empty.
func (r *Redis) Start() {
	r.t.Helper()
	cmd := exec.Command("redis-server", r.args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.cmd = cmd
	for deadline := time.Now().Add(10 * time.Second); ; {
		if c, err := net.DialTimeout("tcp", r.Addr, time.Second); err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("redis-server does not listen on %s", r.Addr)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Pid is the server's process id, for tests that stop and continue it.
func (r *Redis) Pid() int { return r.cmd.Process.Pid }

// Kill ends the server at once.
func (r *Redis) Kill() {
	if r.cmd == nil {
		return
	}
	r.cmd.Process.Kill()
	r.cmd.Wait()
	r.cmd = nil
}
