package bridge

import (
	"encoding/binary"
	"math"
)

// The block formats are those of ggml (ggml-common.h, ggml-quants.c). Products are
// converted to float32 before they are added to anything, which forbids the
// compiler to fuse the two: results are the same on every machine and in C.

// iq4Values are the 16 levels of IQ4_NL and IQ4_XS (kvalues_iq4nl).
var iq4Values = [16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

func half(b []byte) float32 { return f16ToF32(binary.LittleEndian.Uint16(b)) }

func putHalf(b []byte, f float32) { binary.LittleEndian.PutUint16(b, f32ToF16(f)) }

// goDequantize unpacks src, whose size fits dst, block by block.
func goDequantize(t KVType, src []byte, dst []float32) {
	elems, bytes := t.BlockSize()
	unpack := unpackers[t]
	for len(dst) > 0 {
		unpack(src[:bytes], dst[:elems])
		src, dst = src[bytes:], dst[elems:]
	}
}

// goQuantize packs src into a row of a cache type.
func goQuantize(t KVType, src []float32, dst []byte) {
	elems, bytes := t.BlockSize()
	pack := packers[t]
	for len(src) > 0 {
		pack(src[:elems], dst[:bytes])
		src, dst = src[elems:], dst[bytes:]
	}
}

var unpackers = map[KVType]func(b []byte, y []float32){
	F32:   func(b []byte, y []float32) { y[0] = math.Float32frombits(binary.LittleEndian.Uint32(b)) },
	F16:   func(b []byte, y []float32) { y[0] = half(b) },
	BF16:  func(b []byte, y []float32) { y[0] = bf16ToF32(binary.LittleEndian.Uint16(b)) },
	Q4_0:  unpackQ4_0,
	Q4_1:  unpackQ4_1,
	Q5_0:  unpackQ5_0,
	Q5_1:  unpackQ5_1,
	Q8_0:  unpackQ8_0,
	IQ4NL: unpackIQ4NL,
	Q2_K:  unpackQ2K,
	Q3_K:  unpackQ3K,
	Q4_K:  unpackQ4K,
	Q5_K:  unpackQ5K,
	Q6_K:  unpackQ6K,
	IQ4XS: unpackIQ4XS,
}

var packers = map[KVType]func(x []float32, b []byte){
	F32:   func(x []float32, b []byte) { binary.LittleEndian.PutUint32(b, math.Float32bits(x[0])) },
	F16:   func(x []float32, b []byte) { putHalf(b, x[0]) },
	BF16:  func(x []float32, b []byte) { binary.LittleEndian.PutUint16(b, f32ToBF16(x[0])) },
	Q4_0:  packQ4_0,
	Q4_1:  packQ4_1,
	Q5_0:  packQ5_0,
	Q5_1:  packQ5_1,
	Q8_0:  packQ8_0,
	IQ4NL: packIQ4NL,
}

func unpackQ4_0(b []byte, y []float32) {
	d := half(b)
	for j, q := range b[2:18] {
		y[j] = float32(int(q&15)-8) * d
		y[j+16] = float32(int(q>>4)-8) * d
	}
}

func unpackQ4_1(b []byte, y []float32) {
	d, m := half(b), half(b[2:])
	for j, q := range b[4:20] {
		y[j] = float32(float32(q&15)*d) + m
		y[j+16] = float32(float32(q>>4)*d) + m
	}
}

func unpackQ5_0(b []byte, y []float32) {
	d, high := half(b), binary.LittleEndian.Uint32(b[2:])
	for j, q := range b[6:22] {
		y[j] = float32(int(uint32(q&15)|high>>j&1<<4)-16) * d
		y[j+16] = float32(int(uint32(q>>4)|high>>(j+16)&1<<4)-16) * d
	}
}

func unpackQ5_1(b []byte, y []float32) {
	d, m, high := half(b), half(b[2:]), binary.LittleEndian.Uint32(b[4:])
	for j, q := range b[8:24] {
		y[j] = float32(float32(uint32(q&15)|high>>j&1<<4)*d) + m
		y[j+16] = float32(float32(uint32(q>>4)|high>>(j+16)&1<<4)*d) + m
	}
}

func unpackQ8_0(b []byte, y []float32) {
	d := half(b)
	for j, q := range b[2:34] {
		y[j] = float32(int8(q)) * d
	}
}

func unpackIQ4NL(b []byte, y []float32) {
	d := half(b)
	for j, q := range b[2:18] {
		y[j] = d * iq4Values[q&15]
		y[j+16] = d * iq4Values[q>>4]
	}
}

func unpackIQ4XS(b []byte, y []float32) {
	d, high := half(b), binary.LittleEndian.Uint16(b[2:])
	for i := range 8 {
		scale := int(b[4+i/2]>>(4*(i%2))&15) | int(high>>(2*i)&3)<<4
		dl := d * float32(scale-32)
		for j, q := range b[8+16*i : 24+16*i] {
			y[32*i+j] = dl * iq4Values[q&15]
			y[32*i+j+16] = dl * iq4Values[q>>4]
		}
	}
}

func unpackQ2K(b []byte, y []float32) {
	scales, qs, d, dmin := b[:16], b[16:80], half(b[80:]), half(b[82:])
	for i, scale := range scales { // 16 values each
		q := qs[32*(i/8)+16*(i%2):]
		shift := 2 * (i % 8 / 2)
		dl, ml := d*float32(scale&15), float32(dmin*float32(scale>>4))
		for l := range 16 {
			y[16*i+l] = float32(dl*float32(q[l]>>shift&3)) - ml
		}
	}
}

func unpackQ3K(b []byte, y []float32) {
	high, qs, packed, d := b[:32], b[32:96], b[96:108], half(b[108:])
	for i := range 16 { // 16 values each
		scale := packed[i%8] >> (4 * (i / 8)) & 15
		scale |= packed[8+i%4] >> (2 * (i / 4)) & 3 << 4
		dl := d * float32(int(scale)-32)
		half16 := 16 * (i % 2)
		q := qs[32*(i/8)+half16:]
		shift, bit := 2*(i%8/2), byte(1)<<(i/2)
		for l := range 16 {
			v := int(q[l] >> shift & 3)
			if high[half16+l]&bit == 0 {
				v -= 4
			}
			y[16*i+l] = dl * float32(v)
		}
	}
}

// scaleMinK4 unpacks scale and minimum i of the 8 in 12 bytes (get_scale_min_k4).
func scaleMinK4(b []byte, i int) (scale, minimum float32) {
	if i < 4 {
		return float32(b[i] & 63), float32(b[i+4] & 63)
	}
	return float32(b[i+4]&15 | b[i-4]>>6<<4), float32(b[i+4]>>4 | b[i]>>6<<4)
}

func unpackQ4K(b []byte, y []float32) {
	d, dmin, qs := half(b), half(b[2:]), b[16:144]
	for i := range 8 { // 32 values each
		scale, minimum := scaleMinK4(b[4:16], i)
		dl, ml := d*scale, float32(dmin*minimum)
		for l, q := range qs[32*(i/2) : 32*(i/2)+32] {
			y[32*i+l] = float32(dl*float32(q>>(4*(i%2))&15)) - ml
		}
	}
}

func unpackQ5K(b []byte, y []float32) {
	d, dmin, high, qs := half(b), half(b[2:]), b[16:48], b[48:176]
	for i := range 8 { // 32 values each
		scale, minimum := scaleMinK4(b[4:16], i)
		dl, ml := d*scale, float32(dmin*minimum)
		for l, q := range qs[32*(i/2) : 32*(i/2)+32] {
			v := q>>(4*(i%2))&15 | high[l]>>i&1<<4
			y[32*i+l] = float32(dl*float32(v)) - ml
		}
	}
}

func unpackQ6K(b []byte, y []float32) {
	low, high, scales, d := b[:128], b[128:192], b[192:208], half(b[208:])
	for i := range 8 { // 32 values each
		n, k := i/4, i%4
		for l := range 32 {
			v := int(low[64*n+32*(k%2)+l]>>(4*(k/2))&15 | high[32*n+l]>>(2*k)&3<<4)
			scale := float32(int8(scales[8*n+2*k+l/16]))
			y[32*i+l] = float32(d*scale) * float32(v-32)
		}
	}
}

// extreme returns the value of the largest magnitude, the first of equals.
func extreme(x []float32) float32 {
	var amax, value float32
	for _, v := range x {
		if a := abs32(v); a > amax {
			amax, value = a, v
		}
	}
	return value
}

func abs32(v float32) float32 { return math.Float32frombits(math.Float32bits(v) &^ (1 << 31)) }

func inverse(d float32) float32 {
	if d == 0 {
		return 0
	}
	return 1 / d
}

// level rounds a scaled value up from half, and keeps it within 0 to top. NaN
// becomes 0.
func level(v float32, top int32) byte {
	if !(v > 0) {
		return 0
	}
	if v >= float32(top) {
		return byte(top)
	}
	return byte(v)
}

func packQ4_0(x []float32, b []byte) {
	d := extreme(x) / -8
	id := inverse(d)
	putHalf(b, d)
	for j := range 16 {
		lo, hi := level(float32(x[j]*id)+8.5, 15), level(float32(x[j+16]*id)+8.5, 15)
		b[2+j] = lo | hi<<4
	}
}

func bounds(x []float32) (low, high float32) {
	low, high = math.MaxFloat32, -math.MaxFloat32
	for _, v := range x {
		if v < low {
			low = v
		}
		if v > high {
			high = v
		}
	}
	return low, high
}

func packQ4_1(x []float32, b []byte) {
	low, high := bounds(x)
	d := (high - low) / 15
	id := inverse(d)
	putHalf(b, d)
	putHalf(b[2:], low)
	for j := range 16 {
		lo, hi := level(float32((x[j]-low)*id)+0.5, 15), level(float32((x[j+16]-low)*id)+0.5, 15)
		b[4+j] = lo | hi<<4
	}
}

// pack5 stores 32 five-bit levels as four bits each and a word of fifth bits.
func pack5(levels *[32]byte, b []byte) {
	var high uint32
	for j := range 16 {
		lo, hi := levels[j], levels[j+16]
		b[4+j] = lo&15 | hi&15<<4
		high |= uint32(lo>>4)<<j | uint32(hi>>4)<<(j+16)
	}
	binary.LittleEndian.PutUint32(b, high)
}

func packQ5_0(x []float32, b []byte) {
	d := extreme(x) / -16
	id := inverse(d)
	putHalf(b, d)
	var levels [32]byte
	for j, v := range x[:32] {
		levels[j] = level(float32(v*id)+16.5, 31)
	}
	pack5(&levels, b[2:])
}

func packQ5_1(x []float32, b []byte) {
	low, high := bounds(x)
	d := (high - low) / 31
	id := inverse(d)
	putHalf(b, d)
	putHalf(b[2:], low)
	var levels [32]byte
	for j, v := range x[:32] {
		levels[j] = level(float32((v-low)*id)+0.5, 31)
	}
	pack5(&levels, b[4:])
}

func packQ8_0(x []float32, b []byte) {
	d := abs32(extreme(x)) / 127
	id := inverse(d)
	putHalf(b, d)
	for j, v := range x[:32] {
		b[2+j] = byte(roundAway(float32(v * id)))
	}
}

// roundAway rounds to nearest, ties away from 0 (roundf), within int8; NaN becomes 0.
func roundAway(v float32) int8 {
	switch {
	case !(v > -128):
		if v <= -128 {
			return -128
		}
		return 0
	case v >= 127:
		return 127
	}
	whole := int32(v)
	rest := v - float32(whole)
	if rest >= 0.5 {
		whole++
	} else if rest <= -0.5 {
		whole--
	}
	return int8(whole)
}

// nearestIQ4 finds the level nearest to v, the upper one of two as near
// (best_index_int8).
func nearestIQ4(v float32) byte {
	if !(v > iq4Values[0]) {
		return 0
	}
	i := 1
	for i < 15 && v >= iq4Values[i] {
		i++
	}
	if v-iq4Values[i-1] < iq4Values[i]-v {
		return byte(i - 1)
	}
	return byte(i)
}

// packIQ4NL takes the scale that fits the chosen levels best, in the least squares
// weighted by x^2 (quantize_row_iq4_nl_impl with ntry = -1), added up in lanes as the
// C code does.
func packIQ4NL(x []float32, b []byte) {
	clear(b[:18])
	top := extreme(x)
	if !(abs32(top) >= 1e-15) { // GROUP_MAX_EPS
		return
	}
	id := 1 / (top / iq4Values[0])
	var levels [32]byte
	var qx, qq [lanes]float32
	for j, v := range x[:32] {
		levels[j] = nearestIQ4(float32(id * v))
		q := iq4Values[levels[j]]
		w := v * v
		qx[j%lanes] += float32(float32(w*q) * v)
		qq[j%lanes] += float32(float32(w*q) * q)
	}
	if weight := fold(&qq); weight > 0 {
		putHalf(b, fold(&qx)/weight)
	}
	for j := range 16 {
		b[2+j] = levels[j] | levels[j+16]<<4
	}
}
