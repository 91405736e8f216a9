package sim

import "github.com/zeebo/xxh3"

// Vector is the output of the simulated encoders for an input, before quantisation: numbers in
// [-1, 1), not of unit length. For an image the input is its pixels; for a text the bytes of
// the input stream from the first row to the one of the end token.
func Vector(input []byte, dimension int) []float32 {
	v := make([]float32, dimension)
	fillVector(v, xxh3.Hash(input))
	return v
}

// fillVector draws from splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
// generators, 2014), 24 bits a number, so that every machine gets the same float32.
func fillVector(v []float32, seed uint64) {
	for i := range v {
		seed += 0x9e3779b97f4a7c15
		z := seed
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		z ^= z >> 31
		v[i] = float32(int64(z>>40)-1<<23) / (1 << 23)
	}
}

// Vocabulary is how many tokens TokenEmbedding keeps apart.
const Vocabulary = 1 << 16

// TokenEmbedding stands for a row of the vendor's token table, of width numbers: the token's number in
// 16 numbers of -1 or 1, over and over. The simulated chip reads it back; without it hash vectors
// would do as well, but the demo model's encoder needs the tokens.
func TokenEmbedding(token int32, width int) []float32 {
	row := make([]float32, width)
	for i := range row {
		row[i] = float32(token>>(i%16)&1)*2 - 1
	}
	return row
}

// tokenOf is the token of a row that TokenEmbedding made.
func tokenOf(row []float32) int32 {
	token := int32(0)
	for i, v := range row[:min(16, len(row))] {
		if v > 0 {
			token |= 1 << i
		}
	}
	return token
}

// spread scales a vector so that its largest number is 1 or -1: then quantisation costs least.
func spread(dst, v []float32) {
	largest := float32(0)
	for _, x := range v {
		largest = max(largest, x, -x)
	}
	if largest == 0 {
		largest = 1
	}
	clear(dst)
	for i := range min(len(dst), len(v)) {
		dst[i] = v[i] / largest
	}
}
