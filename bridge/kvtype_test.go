package bridge

import "testing"

func TestKVTypeNamesParseBack(t *testing.T) {
	for _, kv := range cacheTypes {
		if got, err := ParseKVType(kv.String()); err != nil || got != kv {
			t.Errorf("%s parsed as %v, %v", kv, got, err)
		}
	}
	for _, name := range []string{"", "q4_K", "type 1", "f64"} {
		if kv, err := ParseKVType(name); err == nil {
			t.Errorf("%q parsed as %v: expected an error", name, kv)
		}
	}
}

func TestRowBytes(t *testing.T) {
	f := func(kv KVType, n, want int) {
		t.Helper()
		got, err := kv.RowBytes(n)
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("%s of %d: %d, %v: expected %d", kv, n, got, err, want)
		}
	}
	f(F32, 3, 12)
	f(F16, 192, 384)
	f(BF16, 1, 2)
	f(Q8_0, 64, 68)
	f(Q4_0, 32, 18)
	f(IQ4NL, 96, 54)
	f(Q6_K, 512, 420)
	f(Q8_0, 33, -1)
	f(F16, -1, -1)
	f(KVType(99), 1, -1)
}
