package bridge

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

func TestModelReadsWhatTheFileSays(t *testing.T) {
	m, err := OpenModel(tinymodel.Make(t, tinymodel.Options{Arch: "qwen2", RoPEBase: 1e6}))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if m.Arch != "qwen2" || m.Layers != 2 || m.HeadsKV != 1 || m.HeadDim != 64 || m.Dim != 128 || m.Vocab != tinymodel.Vocab || m.Context != 2048 {
		t.Errorf("got %+v", m)
	}
	if m.Unshareable != "" || m.RoPE == nil || !m.RoPE.NEOX || m.RoPE.Dims != 64 {
		t.Fatalf("RoPE %+v, unshareable %q", m.RoPE, m.Unshareable)
	}
	if want := math.Pow(1e6, -2.0/64); math.Abs(float64(m.RoPE.Freqs[1])-want) > 1e-6 {
		t.Errorf("frequency %v: expected %v", m.RoPE.Freqs[1], want)
	}
	if m.BOS != tinymodel.EndOfText || m.AddBOS || m.pieces.typ[m.BOS] != tokenControl || m.pieces.typ['a'] == tokenControl {
		t.Errorf("BOS %d, add %v", m.BOS, m.AddBOS)
	}
	row := make([]float32, m.Dim)
	if err := m.EmbeddingRow(GoKernels(), 'a', row); err != nil {
		t.Fatal(err)
	}
	var norm float64
	for _, v := range row {
		norm += float64(v) * float64(v)
	}
	if norm < 60 || norm > 250 {
		t.Errorf("squared norm %v of 128 standard normals", norm)
	}
	for _, token := range []int32{-1, tinymodel.Vocab} {
		if m.EmbeddingRow(GoKernels(), token, row) == nil || m.Piece(token) != "" {
			t.Errorf("token %d exists", token)
		}
	}
}

func TestPieceGivesTheBytes(t *testing.T) {
	m, err := OpenModel(tinymodel.Make(t, tinymodel.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for b := range 256 {
		if got := m.Piece(int32(b)); got != string([]byte{byte(b)}) {
			t.Errorf("byte %d gives %q", b, got)
		}
	}
	if got := m.Piece(tinymodel.Start); got != "<|im_start|>" {
		t.Errorf("control token gives %q", got)
	}
	spm := pieces{kind: "llama", text: []string{"▁king", "<0x0A>", "s"}, typ: []uint8{1, tokenByte, 1}}
	for i, want := range []string{" king", "\n", "s"} {
		if got := spm.decode(int32(i)); got != want {
			t.Errorf("token %d gives %q, want %q", i, got, want)
		}
	}
}

func TestModelsThatCannotBeSharedAreNamed(t *testing.T) {
	f := func(want string, o tinymodel.Options) {
		t.Helper()
		m, err := OpenModel(tinymodel.Make(t, o))
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if !strings.Contains(m.Unshareable, want) || m.RoPE != nil {
			t.Errorf("got %q, want %q", m.Unshareable, want)
		}
	}
	extra := func(arch, key string, v any) tinymodel.Options {
		return tinymodel.Options{Arch: arch, Extra: map[string]any{arch + "." + key: v}}
	}
	f("sliding-window", tinymodel.Options{Arch: "gemma3"})
	f("sliding-window", extra("phi3", "attention.sliding_window", uint32(2048)))
	f("recurrent", tinymodel.Options{Arch: "mamba"})
	f("recurrent", extra("llama", "ssm.state_size", uint32(16)))
	f("MLA", extra("deepseek2", "attention.kv_lora_rank", uint32(512)))
	f("M-RoPE", tinymodel.Options{Arch: "qwen2vl"})
	f("M-RoPE", extra("glm4", "rope.dimension_sections", []int32{8, 12, 12, 0}))
	f("encoder", extra("llama", "attention.causal", false))
	f("does not use RoPE", tinymodel.Options{Arch: "gpt2"})
	f("without RoPE", tinymodel.Options{Arch: "smollm3"})
	f("without attention", tinymodel.Options{Arch: "deci"})
	f("not known", tinymodel.Options{Arch: "from-the-future"})
	f("depends on the server's context", tinymodel.Options{Arch: "phi3", Scaling: "longrope", ScalingFactor: 4})
	f("frequency factors", tinymodel.Options{Factors: []float32{1, 2, 3}})
}

func TestModelScalings(t *testing.T) {
	f := func(o tinymodel.Options, pair int, want float64) {
		t.Helper()
		m, err := OpenModel(tinymodel.Make(t, o))
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if m.RoPE == nil || math.Abs(float64(m.RoPE.Freqs[pair])/want-1) > 1e-5 {
			t.Errorf("%+v, %s: expected %v", m.RoPE, m.Unshareable, want)
		}
	}
	factors := make([]float32, 32)
	for i := range factors {
		factors[i] = 8
	}
	f(tinymodel.Options{}, 0, 1)
	f(tinymodel.Options{Factors: factors}, 0, 1.0/8)
	f(tinymodel.Options{Scaling: "linear", ScalingFactor: 4}, 0, 1.0/4)
	f(tinymodel.Options{Scaling: "none", ScalingFactor: 4}, 0, 1)
	f(tinymodel.Options{Scaling: "yarn", ScalingFactor: 4, OrigContext: 512}, 0, 1)
	f(tinymodel.Options{Scaling: "yarn", ScalingFactor: 4, OrigContext: 512}, 31, math.Pow(1e4, -62.0/64)/4)
}

func TestHashTellsModelsApart(t *testing.T) {
	hash := func(o tinymodel.Options) string {
		m, err := OpenModel(tinymodel.Make(t, o))
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		return m.Hash
	}
	one := hash(tinymodel.Options{})
	if again := hash(tinymodel.Options{}); again != one || len(one) != 16 {
		t.Errorf("the same model has hashes %s and %s", one, again)
	}
	if hash(tinymodel.Options{Seed: 2}) == one || hash(tinymodel.Options{RoPEBase: 1e5}) == one {
		t.Error("other weights or settings have the same hash")
	}
}

func TestOpenModelRefusesBrokenFiles(t *testing.T) {
	whole, err := os.ReadFile(tinymodel.Make(t, tinymodel.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	f := func(data []byte) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "broken.gguf")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if m, err := OpenModel(path); !errors.Is(err, ErrModel) {
			t.Errorf("%d bytes: got %+v, %v", len(data), m, err)
		}
	}
	f(nil)
	f([]byte("no model, but a text of some length"))
	for _, n := range []int{24, 100, 1000, 20000, 40000} {
		f(whole[:n])
	}
}
