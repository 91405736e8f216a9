package sim

import (
	"github.com/zeebo/xxh3"
)

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
