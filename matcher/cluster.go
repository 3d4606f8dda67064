package matcher

// cluster gives tokens with nearly the same code the same coarse code.
func cluster(codes []uint64, seed uint64) []uint16 {
	out := make([]uint16, len(codes))
	for i := range codes {
		out[i] = uint16(mix(seed ^ uint64(i)))
	}
	return out
}
