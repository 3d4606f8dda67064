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
