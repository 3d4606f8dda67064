package bridge

import (
	"fmt"
	"testing"
)

// BenchmarkCompose moves the keys and copies the values of a 0.5B model's cache of
// 2,500 tokens, in runs as plans have them. BenchmarkCopy copies the same bytes on
// one thread, layer by layer, where Go copies past the caches, and in the same runs:
// composing is to reach half its speed.
func BenchmarkCompose(b *testing.B) {
	f := func(k *Kernels, kv KVType, threads int) {
		b.Run(fmt.Sprintf("%s/%s/%d", firstWords(k.Name()), kv, threads), func(b *testing.B) {
			jobs, runs, rope, size := benchmarkState(b, kv)
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				if err := k.Compose(jobs, runs, rope, threads); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for _, k := range testKernels(b) {
		f(k, F16, 1)
		f(k, F16, 2)
		f(k, Q8_0, 1)
	}
}

func firstWords(name string) string {
	if name == "go" {
		return name
	}
	return "native"
}

func BenchmarkCopy(b *testing.B) {
	jobs, runs, _, size := benchmarkState(b, F16)
	f := func(name string, runs []Run) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				copyRuns(jobs, runs)
			}
		})
	}
	f("layers", []Run{{Len: runs[0].Len * int32(len(runs))}})
	f("runs", runs)
}

func copyRuns(jobs []LayerJob, runs []Run) {
	for i := range jobs {
		j := &jobs[i]
		for _, r := range runs {
			copy(j.K[int64(r.Dst)*j.KRow:], j.Sources[0].K[int64(r.Src)*j.KRow:int64(r.Src+r.Len)*j.KRow])
			copy(j.V[int64(r.Dst)*j.VRow:], j.Sources[0].V[int64(r.Src)*j.VRow:int64(r.Src+r.Len)*j.VRow])
		}
	}
}

func benchmarkState(b *testing.B, kv KVType) (jobs []LayerJob, runs []Run, rope *RoPE, size int64) {
	const layers, cells, width, run = 24, 2500, 256, 50
	row, err := kv.RowBytes(width)
	if err != nil {
		b.Fatal(err)
	}
	filled := func() []byte {
		s := make([]byte, cells*row)
		for i := range s {
			s[i] = byte(i % 61)
		}
		return s
	}
	for range layers {
		jobs = append(jobs, LayerJob{
			K: filled(), V: filled(), KType: kv, VType: kv, KRow: int64(row), VRow: int64(row),
			Sources: []LayerSource{{K: filled(), V: filled()}},
		})
		size += int64(2 * cells * row)
	}
	for at := int32(0); at < cells; at += run {
		runs = append(runs, Run{Src: cells - run - at, Dst: at, Len: run, Delta: at%7 + 1})
	}
	return jobs, runs, testRoPE(b, true, 64, 64), size
}

// BenchmarkSignatures signs 5,000 tokens of 896 values at their positions, 128 bits.
func BenchmarkSignatures(b *testing.B) {
	const n, dim, bits = 5000, 896, 128
	rows, planes, pos := make([]float32, n*dim), make([]float32, bits*dim), make([]int32, n)
	for i := range rows {
		rows[i] = float32(i%17) - 8
	}
	for i := range planes {
		planes[i] = float32(i%13) - 6
	}
	for i := range pos {
		pos[i] = int32(i)
	}
	freqs, out := testRoPE(b, false, dim, dim).Freqs, make([]uint64, n*bits/64)
	for _, k := range testKernels(b) {
		b.Run(firstWords(k.Name()), func(b *testing.B) {
			for b.Loop() {
				if err := k.Signatures(rows, dim, pos, freqs, planes, bits, out, 2); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
