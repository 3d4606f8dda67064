package bridge

import (
	"fmt"
	"strings"
)

// KVType is a tensor type as ggml numbers it (enum ggml_type). Keys and values
// come in F32, F16, BF16 and the 32-element block types; the K-quants and IQ4_XS
// occur only as the weights of a model.
type KVType uint32

// The types that a cache or an embedding table may have.
const (
	F32   KVType = 0
	F16   KVType = 1
	Q4_0  KVType = 2
	Q4_1  KVType = 3
	Q5_0  KVType = 6
	Q5_1  KVType = 7
	Q8_0  KVType = 8
	Q2_K  KVType = 10
	Q3_K  KVType = 11
	Q4_K  KVType = 12
	Q5_K  KVType = 13
	Q6_K  KVType = 14
	IQ4NL KVType = 20
	IQ4XS KVType = 23
	BF16  KVType = 30
)

// typeInfo describes one type: how many elements share a block, and the block's
// bytes. Cache types are those llama.cpp accepts for --cache-type-k.
type typeInfo struct {
	name  string
	elems int
	bytes int
	cache bool
}

var typeInfos = map[KVType]typeInfo{
	F32:   {"f32", 1, 4, true},
	F16:   {"f16", 1, 2, true},
	BF16:  {"bf16", 1, 2, true},
	Q4_0:  {"q4_0", 32, 18, true},
	Q4_1:  {"q4_1", 32, 20, true},
	Q5_0:  {"q5_0", 32, 22, true},
	Q5_1:  {"q5_1", 32, 24, true},
	Q8_0:  {"q8_0", 32, 34, true},
	IQ4NL: {"iq4_nl", 32, 18, true},
	Q2_K:  {"q2_K", 256, 84, false},
	Q3_K:  {"q3_K", 256, 110, false},
	Q4_K:  {"q4_K", 256, 144, false},
	Q5_K:  {"q5_K", 256, 176, false},
	Q6_K:  {"q6_K", 256, 210, false},
	IQ4XS: {"iq4_xs", 256, 136, false},
}

// String returns the name llama.cpp gives the type, such as "q8_0".
func (t KVType) String() string {
	if info, ok := typeInfos[t]; ok {
		return info.name
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// ParseKVType returns the cache type of that name, in either case.
func ParseKVType(name string) (KVType, error) {
	for t, info := range typeInfos {
		if info.cache && strings.EqualFold(info.name, name) {
			return t, nil
		}
	}
	return 0, fmt.Errorf("unknown cache type %q: expected f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1 or iq4_nl", name)
}

// IsCache tells whether keys and values can have the type.
func (t KVType) IsCache() bool { return typeInfos[t].cache }

// BlockSize returns how many elements share a block, and the bytes of a block;
// zeros for an unknown type.
func (t KVType) BlockSize() (elems, bytes int) {
	info := typeInfos[t]
	return info.elems, info.bytes
}

// RowBytes returns the bytes of a row of n elements.
func (t KVType) RowBytes(n int) (int, error) {
	info, ok := typeInfos[t]
	switch {
	case !ok:
		return 0, fmt.Errorf("unknown tensor type %d", uint32(t))
	case n < 0 || n%info.elems != 0:
		return 0, fmt.Errorf("row of %d elements: %s needs a multiple of %d", n, info.name, info.elems)
	}
	return n / info.elems * info.bytes, nil
}

// rowElems is the inverse of RowBytes.
func (t KVType) rowElems(bytes int64) (int, error) {
	info, ok := typeInfos[t]
	switch {
	case !ok:
		return 0, fmt.Errorf("unknown tensor type %d", uint32(t))
	case bytes <= 0 || bytes%int64(info.bytes) != 0:
		return 0, fmt.Errorf("row of %d bytes: %s needs a multiple of %d", bytes, info.name, info.bytes)
	}
	return int(bytes / int64(info.bytes) * int64(info.elems)), nil
}
