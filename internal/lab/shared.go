package lab

import (
	"bufio"
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

//go:embed shared/setup
var sharedSetup string

//go:embed shared/host.c
var sharedHost string

// SharedHost is a program linked with a shared libllama, as llama.cpp's own releases link
// llama-server; what it can do is what restoring needs, see shared/host.c. It has two
// sequences.
type SharedHost struct {
	Dir string // of the files that Save and Restore name

	t   testing.TB
	in  io.WriteCloser
	out *bufio.Scanner
}

// StartShared builds and runs the program, with the library for LD_PRELOAD, until the
// test ends. Where it cannot be had the rules of StartBackend hold.
func StartShared(t testing.TB, model, preload string, tokens int) *SharedHost {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: needs llama.cpp's shared libraries, and -short is set")
	}
	dir := t.TempDir()
	program, libraries := buildShared(t, dir)
	cmd := exec.Command(program, libraries, model, strconv.Itoa(tokens))
	cmd.Env = append(os.Environ(), "LD_PRELOAD="+preload)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	h := &SharedHost{Dir: dir, t: t}
	if h.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.out = bufio.NewScanner(out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.in.Close()
		err := cmd.Wait()
		if text, _ := os.ReadFile(log.Name()); err != nil || t.Failed() {
			t.Errorf("the program with a shared libllama ended with %v:\n%s", err, tail(text, 4000))
		}
	})
	return h
}

// buildShared links the program in dir, and returns it and the folder of the libraries.
func buildShared(t testing.TB, dir string) (program, libraries string) {
	t.Helper()
	libraries, err := os.Getenv(ownLibraries), error(nil)
	if libraries == "" {
		libraries, err = runScript(context.Background(), sharedSetup, os.Stderr)
	}
	if err != nil {
		missing(t, fmt.Errorf("cannot install llama.cpp's shared libraries: %w", err))
	}
	args := []string{"-x", "c", "-", "-x", "none", "-o", filepath.Join(dir, "host"), "-Wl,-rpath," + libraries, "-L" + libraries}
	for _, pattern := range []string{"libllama.*so", "libggml.*so", "libggml-base.so"} {
		found, _ := filepath.Glob(filepath.Join(libraries, pattern))
		args = append(args, found...)
	}
	cc := exec.Command(or(os.Getenv("CC"), "cc"), args...)
	cc.Stdin = strings.NewReader(sharedHost)
	if text, err := cc.CombinedOutput(); err != nil {
		t.Fatalf("cannot link with %s: %v\n%s", libraries, err, text)
	}
	return filepath.Join(dir, "host"), libraries
}

// Compute empties the sequence and computes the tokens.
func (h *SharedHost) Compute(seq int, tokens []int32) {
	h.t.Helper()
	h.do("compute %d %s", seq, list(tokens))
}

// Save saves the sequence, which holds the tokens.
func (h *SharedHost) Save(seq int, file string, tokens []int32) {
	h.t.Helper()
	h.do("save %d %s %s", seq, filepath.Join(h.Dir, file), list(tokens))
}

// Restore restores a file and returns of how many tokens, or what the program says.
func (h *SharedHost) Restore(seq int, file string) (int, error) {
	h.t.Helper()
	answer := h.ask("restore %d %s", seq, filepath.Join(h.Dir, file))
	var n int
	if _, err := fmt.Sscanf(answer, "ok %d", &n); err != nil {
		return 0, fmt.Errorf("restoring %s: %s", file, answer)
	}
	return n, nil
}

func (h *SharedHost) do(format string, args ...any) {
	h.t.Helper()
	if answer := h.ask(format, args...); answer != "ok" {
		h.t.Fatalf("%s: %s", strings.Fields(format)[0], answer)
	}
}

func (h *SharedHost) ask(format string, args ...any) string {
	h.t.Helper()
	if _, err := fmt.Fprintf(h.in, format+"\n", args...); err != nil {
		h.t.Fatal(err)
	}
	if !h.out.Scan() {
		h.t.Fatalf("the program with a shared libllama ended: %v", h.out.Err())
	}
	return h.out.Text()
}

// list is how many tokens there are, and these.
func list(tokens []int32) string {
	var b strings.Builder
	fmt.Fprint(&b, len(tokens))
	for _, id := range tokens {
		fmt.Fprint(&b, " ", id)
	}
	return b.String()
}
