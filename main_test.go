package main

import (
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
	"time"
)

// asProgram makes the test binary be the program itself.
const asProgram = "SEMSHAREKV_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// program is the program as a process of its own.
type program struct {
	*exec.Cmd
	t     testing.TB
	ended chan struct{}
}

// run starts the program with the arguments; it is killed when the test ends.
func run(t testing.TB, args ...string) *program {
	t.Helper()
	p := &program{Cmd: exec.Command(os.Args[0], args...), t: t, ended: make(chan struct{})}
	p.Env = append(os.Environ(), asProgram+"=1")
	// A file of its own: what the program leaves running must not keep a pipe open.
	out, err := os.CreateTemp(t.TempDir(), "output")
	if err != nil {
		t.Fatal(err)
	}
	p.Stdout, p.Stderr = out, out
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-p.ended
		_ = out.Close()
		if t.Failed() {
			t.Logf("%v:\n%s", args, p.output())
		}
	})
	return p
}

// output is what the program and its server wrote so far.
func (p *program) output() []byte {
	text, _ := os.ReadFile(p.Stdout.(*os.File).Name())
	return text
}

// find returns the group of the last match of pattern in the output, or "".
func (p *program) find(pattern string) string {
	all := regexp.MustCompile(pattern).FindAllSubmatch(p.output(), -1)
	if len(all) == 0 {
		return ""
	}
	return string(all[len(all)-1][1])
}

// exit waits for the program's end and returns its exit status.
func (p *program) exit() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(2 * time.Minute):
		_ = p.Process.Signal(syscall.SIGQUIT)
		p.t.Fatal("it does not end")
	}
	return p.ProcessState.ExitCode()
}

// eventually waits until f is true.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so after two minutes: %s", what)
		}
	}
}
