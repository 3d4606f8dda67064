package tinymodel_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// complete has the server go on from a prompt, and returns how many tokens it saw.
func complete(t *testing.T, url, prompt string) int {
	t.Helper()
	body, _ := json.Marshal(map[string]any{"prompt": prompt, "n_predict": 2, "temperature": 0})
	resp, err := http.Post(url+"/completion", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", resp.Status, text)
	}
	var answer struct {
		Timings struct {
			PromptN int `json:"prompt_n"`
		} `json:"timings"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Timings.PromptN
}

func TestRealServerLoadsTinyModels(t *testing.T) {
	f := func(name string, o tinymodel.Options) {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "tiny.gguf")
			if err := tinymodel.WriteFile(path, o); err != nil {
				t.Fatal(err)
			}
			b := lab.StartBackend(t, lab.BackendOptions{Model: path, Context: 512, NoRAMCache: true})
			if n := complete(t, b.URL, "the king said"); n != len("the king said") {
				t.Errorf("%d tokens: expected one a byte", n)
			}
		})
	}
	factors := make([]float32, 32)
	for i := range factors {
		factors[i] = 1 + float32(i)/8
	}
	f("llama", tinymodel.Options{})
	f("llama with factors", tinymodel.Options{Factors: factors})
	f("qwen2", tinymodel.Options{Arch: "qwen2", RoPEBase: 1e6})
	f("llama with YaRN", tinymodel.Options{Scaling: "yarn", ScalingFactor: 4, OrigContext: 512})
}

func TestWriteIsRepeatable(t *testing.T) {
	var a, b bytes.Buffer
	if err := tinymodel.Write(&a, tinymodel.Options{Seed: 3}); err != nil {
		t.Fatal(err)
	}
	if err := tinymodel.Write(&b, tinymodel.Options{Seed: 3}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("the same seed gave two models")
	}
	if err := tinymodel.Write(io.Discard, tinymodel.Options{Extra: map[string]any{"x": 1i}}); err == nil {
		t.Error("metadata of a strange type: no error")
	}
}
