package bridge

import (
	"path/filepath"
	"testing"
)

// benchmarkCreate writes states of SmolLM2's size (30 layers, 2,300 tokens, 54 MB)
// and touches every page of them.
func benchmarkCreate(b *testing.B, create func(l *Layout, tokens, pos []int32) (*StateWriter, error)) {
	l := &Layout{Version: 4, Packed: true, Streams: 2}
	for range 30 {
		l.Layers = append(l.Layers, LayerLayout{KType: F16, KRow: 384, VType: F16, VRow: 384})
	}
	tokens, pos := make([]int32, 2300), make([]int32, 2300)
	for i := range pos {
		pos[i] = int32(i)
	}
	b.SetBytes(l.FileBytes(len(tokens), len(pos)))
	for b.Loop() {
		w, err := create(l, tokens, pos)
		if err != nil {
			b.Fatal(err)
		}
		for i := range w.Layers() {
			job := w.Layer(i)
			for j := 0; j < len(job.K); j += 4096 {
				job.K[j], job.V[j] = 1, 1
			}
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreateState(b *testing.B) {
	path := filepath.Join(b.TempDir(), "state")
	benchmarkCreate(b, func(l *Layout, tokens, pos []int32) (*StateWriter, error) {
		return CreateState(path, l, 0, tokens, pos)
	})
}

func BenchmarkScratchCreate(b *testing.B) {
	s := openStore(b, b.TempDir(), StoreOptions{})
	sf, err := s.Scratch(0)
	if err != nil {
		b.Fatal(err)
	}
	benchmarkCreate(b, func(l *Layout, tokens, pos []int32) (*StateWriter, error) {
		return sf.Create(l, 0, tokens, pos)
	})
}

func BenchmarkOpenState(b *testing.B) {
	path := filepath.Join(b.TempDir(), "state")
	benchmarkOpen(b, path)
}

func benchmarkOpen(b *testing.B, path string) {
	writeState(b, path, testLayout(4, true, false, 2, F16, F16), 0, 2300, 1)
	for b.Loop() {
		s, err := OpenState(path)
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
