package lab

import (
	"context"
	"os"
	"testing"
)

// StartBackend runs a llama-server until the test ends. Where it cannot be had
// the test is skipped, saying why; under CI, or with SEMSHARE_REQUIRE_BACKEND
// set, it fails instead. Unless told otherwise the server computes on one thread:
// the packages' tests run side by side, and the threads of several servers that wait
// for each other in loops, as ggml's do, take most of a small machine.
func StartBackend(t testing.TB, o BackendOptions) *Backend {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: needs a real llama-server, and -short is set")
	}
	if o.Progress == nil {
		o.Progress = os.Stderr
	}
	o.Threads = or(o.Threads, 1)
	tools, err := Setup(context.Background(), o.Progress)
	if err != nil {
		missing(t, err)
	}
	b, err := start(context.Background(), tools, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(b.Log)
			t.Logf("end of llama-server's log:\n%s", tail(text, 4000))
		}
		b.Close()
	})
	return b
}

// ServerCommand returns the path of a llama-server command and of the small model,
// under the same rules as StartBackend.
func ServerCommand(t testing.TB) (program, model string) {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: needs a real llama-server, and -short is set")
	}
	tools, err := Setup(context.Background(), os.Stderr)
	if err != nil {
		missing(t, err)
	}
	program, err = tools.Command(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return program, tools.Model
}

func missing(t testing.TB, err error) {
	t.Helper()
	if required() {
		t.Fatal(err)
	}
	t.Skipf("SKIPPED: %v", err)
}

func required() bool {
	return os.Getenv("CI") != "" || os.Getenv("SEMSHARE_REQUIRE_BACKEND") != ""
}
