package matcher

import (
	"context"
	"fmt"
	"testing"

	"github.com/semsharekv/semsharekv/internal/lab"
)

func BenchmarkFingerprint5000(b *testing.B) {
	s := testSigner(b, 1)
	tokens := prose(1, 5000)
	b.ReportAllocs()
	for b.Loop() {
		s.Fingerprint(tokens)
	}
}

func BenchmarkFind5000(b *testing.B) {
	f := func(name string, o func() IndexOptions) {
		b.Run(name, func(b *testing.B) {
			s := testSigner(b, 1)
			x := openTest(b, o())
			for i := range 100 {
				mustAdd(b, x, testScope, fmt.Sprintf("%016x", i), s.Fingerprint(prose(uint64(i), 5000)))
			}
			fp := s.Fingerprint(prose(50, 5000))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := x.Find(context.Background(), testScope, fp, 8); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	f("embedded", func() IndexOptions { return IndexOptions{} })
	f("redis", func() IndexOptions { return IndexOptions{URL: lab.StartRedis(b).URL} })
}

func BenchmarkECache256(b *testing.B) {
	s := testSigner(b, 1)
	tokens := make([]int32, 256)
	pos := make([]int32, 256)
	for i := range tokens {
		tokens[i], pos[i] = int32(i), int32(i)
	}
	for b.Loop() {
		if _, err := s.ECache(tokens, pos); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkProjectGo(b *testing.B) {
	const dim, n = 576, 64
	rows, planes := randomPlanes(1, n, dim), randomPlanes(2, ecacheBits, dim)
	out := make([]uint64, n*2)
	b.SetBytes(4 * n * dim)
	for b.Loop() {
		if err := ProjectGo(rows, dim, nil, nil, planes, ecacheBits, out); err != nil {
			b.Fatal(err)
		}
	}
}
