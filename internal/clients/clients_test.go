// Package clients tries the real client libraries: each runs the same cases
// through the sidecar and straight at llama-server, and both must come out alike.
package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/internal/lab"
)

const key = "key-of-the-test"

// Client scripts, each a library.
var scripts = []string{
	"openai_client.py", "anthropic_client.py", "langchain_client.py", "litellm_client.py",
	"openai_client.mjs", "anthropic_client.mjs",
}

func TestClientsWorkUnchanged(t *testing.T) {
	template, err := os.ReadFile("tools.jinja")
	if err != nil {
		t.Fatal(err)
	}
	backend := lab.StartBackend(t, lab.BackendOptions{Context: 8192, Slots: 2, APIKey: key, NoRAMCache: true, ChatTemplate: string(template)})
	dir, node := install(t)
	url := startSidecar(t, backend)
	ask(t, url, document(0))
	for i, script := range scripts {
		t.Run(script, func(t *testing.T) {
			program := filepath.Join(dir, "venv", "bin", "python")
			if strings.HasSuffix(script, ".mjs") {
				program = node
			}
			// The sidecar first: straight at the server its cache may hold the document.
			text := document(i + 1)
			through := run(t, dir, program, script, url, text, 0)
			// llama-server closes connections after a stream without saying so, which a
			// client that keeps them may meet with its next request.
			straight := run(t, dir, program, script, backend.URL, text, 2)
			compare(t, through, straight)
		})
	}
}

// compare wants every case alike, but those that say what was shared: there the
// sidecar says what it did, and the answer only has to be one.
func compare(t *testing.T, through, straight map[string]any) {
	t.Helper()
	if len(through) == 0 || len(through) != len(straight) {
		t.Fatalf("%d cases through the sidecar, %d without", len(through), len(straight))
	}
	for name, got := range through {
		want := straight[name]
		if fields, ok := want.(map[string]any); ok && !strings.HasPrefix(name, "shared") {
			if fails := mustFail(name); fails != (fields["error"] != nil) {
				t.Errorf("%s, straight at the server: %v; an error is expected: %t", name, want, fails)
			}
		}
		switch {
		case name == "shared_off":
			expectDid(t, name, got, "cold; reason=")
		case strings.HasPrefix(name, "shared"):
			expectDid(t, name, got, "shared; ")
			alikeBesides(t, name, got, want)
		case !reflect.DeepEqual(got, want):
			t.Errorf("%s:\n through the sidecar %v\n straight            %v", name, got, want)
		}
	}
}

func mustFail(name string) bool {
	switch name {
	case "bad_request", "wrong_key", "wrong_path", "no_embeddings":
		return true
	}
	return false
}

func expectDid(t *testing.T, name string, got any, prefix string) {
	t.Helper()
	fields, _ := got.(map[string]any)
	if did, _ := fields["did"].(string); !strings.HasPrefix(did, prefix) {
		t.Errorf("%s: %v, want X-SemShareKV to begin with %q", name, got, prefix)
	}
}

// alikeBesides compares all but what was done and the text, which sharing may
// change by a word; empty it is not.
func alikeBesides(t *testing.T, name string, got, want any) {
	t.Helper()
	g, _ := got.(map[string]any)
	w, _ := want.(map[string]any)
	for field := range w {
		switch {
		case field == "did":
		case field == "text":
			if g[field] == "" {
				t.Errorf("%s: no text", name)
			}
		case !reflect.DeepEqual(g[field], w[field]):
			t.Errorf("%s: %s is %v through the sidecar, %v straight", name, field, g[field], w[field])
		}
	}
}

// install returns the folder with the libraries, and the node that runs scripts.
func install(t *testing.T) (dir, node string) {
	t.Helper()
	cmd := exec.Command("sh", "setup")
	var said bytes.Buffer
	cmd.Stderr = io.MultiWriter(os.Stderr, &said)
	out, err := cmd.Output()
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("cannot install the clients: %v: %s", err, said.Bytes())
		}
		t.Skipf("SKIPPED: cannot install the clients: %v: %s", err, said.Bytes())
	}
	dir, node, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
	return dir, node
}

// run runs a client's cases and returns what came of each.
func run(t *testing.T, dir, program, script, url, text string, retries int) map[string]any {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(here, script)
	if strings.HasSuffix(script, ".mjs") {
		// Node looks for packages beside the script.
		path = filepath.Join(dir, script)
		for _, name := range []string{script, "cases.mjs"} {
			copyFile(t, name, filepath.Join(dir, name))
		}
	}
	cmd := exec.CommandContext(ctx, program, path)
	cmd.Env = append(os.Environ(), "URL="+url, "KEY="+key, "DOCUMENT="+text, fmt.Sprintf("RETRIES=%d", retries), "PYTHONDONTWRITEBYTECODE=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s against %s: %v\n%s", script, url, err, stderr.Bytes())
	}
	var cases map[string]any
	if err := json.Unmarshal(stdout.Bytes(), &cases); err != nil {
		t.Fatalf("%s printed %q: %v", script, stdout.Bytes(), err)
	}
	return cases
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// startSidecar builds the program and runs it beside the backend.
func startSidecar(t *testing.T, b *lab.Backend) (url string) {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "semsharekv")
	if out, err := exec.Command("go", "build", "-o", program, "../..").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	library, err := filepath.Abs("../../bin/libsemshare.so")
	if err != nil {
		t.Fatal(err)
	}
	listen, admin := address(t), address(t)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", "--backend", b.URL, "--slot-dir", b.SlotDir, "--api-key-env", "BACKEND_KEY",
		"--listen", listen, "--admin", admin, "--library", library, "--min-tokens", "64")
	cmd.Env = append(os.Environ(), "BACKEND_KEY="+key)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("the sidecar's log:\n%s", text)
		}
		_ = log.Close()
	})
	wait(t, "the sidecar is ready", func() bool {
		resp, err := http.Get("http://" + admin + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return "http://" + listen
}

func address(t *testing.T) string {
	t.Helper()
	port, err := lab.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return "127.0.0.1:" + strconv.Itoa(port)
}

// ask asks about a text until what resembles it is shared: it is kept a moment
// after the answer.
func ask(t *testing.T, url, text string) {
	t.Helper()
	wait(t, "a text that resembles an earlier one is shared", func() bool {
		body, _ := json.Marshal(map[string]any{
			"messages":   []any{map[string]string{"role": "user", "content": text + "\n\nWhat is this text about?"}},
			"max_tokens": 2,
		})
		text = strings.Replace(text, "report", "account", 1)
		req, _ := http.NewRequest(http.MethodPost, url+"/v1/chat/completions", bytes.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+key)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("status %d: %v", resp.StatusCode, err)
		}
		return strings.HasPrefix(resp.Header.Get("X-SemShareKV"), "shared")
	})
}

func wait(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !f(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so after two minutes: %s", what)
		}
	}
}

// document is a text of some 400 tokens that differs from the others in one
// sentence, in its first half.
func document(n int) string {
	topics := []string{
		"The harbour was built where the river meets the sea, and ships have called there ever since the stone quay was laid.",
		"Every spring the council publishes a report on the state of the bridges, the roads and the water mains of the town.",
		"Fishing boats leave before dawn and come back with herring and mackerel, which are sold from the quay by noon.",
		"The old customs house is now a library, whose reading room looks over the masts and the cranes of the yard.",
		"A ferry crosses to the islands when the weather allows, carrying letters, bread, and whoever has business there.",
		"In winter the lighthouse keeper writes a report of the storms, with the height of the waves and the damage done.",
		"The school teaches navigation besides reading and arithmetic, for most of the children will go to sea one day.",
		"At the market people trade wool and cheese from the hills for salt, rope, and sailcloth made in the long sheds.",
	}
	edits := []string{"painters", "surveyors", "musicians", "botanists", "students", "historians", "carpenters", "visitors"}
	var text strings.Builder
	for i := range 2 {
		for j, topic := range topics {
			if i == 0 && j == 6 {
				fmt.Fprintf(&text, "This year a group of %s came to see how the nets are mended and the boats are tarred.\n", edits[n%len(edits)])
			}
			fmt.Fprintf(&text, "%s ", topic)
		}
		text.WriteString([]string{"\n\nSo it is in summer.\n\n", ""}[i])
	}
	return text.String()
}
