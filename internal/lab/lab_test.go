package lab

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
)

func TestBackendAnswersAndComesBack(t *testing.T) {
	b := StartBackend(t, BackendOptions{Slots: 3, Context: 1536})
	slots := func() int {
		t.Helper()
		resp, err := http.Get(b.URL + "/slots")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		var all []any
		if err := json.Unmarshal(text, &all); err != nil {
			t.Fatalf("/slots: %v: %s", err, text)
		}
		return len(all)
	}
	if n := slots(); n != 3 {
		t.Fatalf("%d slots, want 3", n)
	}
	b.Kill()
	if resp, err := http.Get(b.URL + "/slots"); err == nil {
		resp.Body.Close()
		t.Fatal("a killed server answers")
	}
	if err := b.Launch(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := b.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := slots(); n != 3 {
		t.Fatalf("%d slots after a restart, want 3", n)
	}
	b.Close()
	if _, err := os.Stat(b.SlotDir); err == nil {
		t.Fatalf("%s is left behind", b.SlotDir)
	}
}

func TestBackendSaysWhyItDoesNotStart(t *testing.T) {
	tools, err := Setup(context.Background(), os.Stderr)
	if err != nil {
		missing(t, err)
	}
	_, err = start(context.Background(), tools, BackendOptions{Model: "/nowhere/model.gguf"})
	if err == nil || !strings.Contains(err.Error(), "/nowhere/model.gguf") {
		t.Fatalf("error %v does not name the model", err)
	}
}

func TestRedisComesBack(t *testing.T) {
	r := StartRedis(t)
	r.Kill()
	r.Start()
	if !strings.HasPrefix(r.URL, "redis://127.0.0.1:") {
		t.Fatalf("URL %s", r.URL)
	}
}
