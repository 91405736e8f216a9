package stages

import "math/bits"

const (
	hashRows, hashColumns = 8, 9

	// hashSamples is how many pixels of a cell count, in each direction, at most: the mean of 256 is as good as that of
	// thousands, and the time does not grow with the image.
	hashSamples = 16

	// hashMargin is how much brighter the right one of two cells must be, in 1/256 of a grey level: what the noise of a camera
	// (8 levels a pixel) makes of the means of an even surface stays below it.
	hashMargin = 2 << 8
)

// DifferenceHash is a 64-bit dHash of a region of an image, of all of it if r is the zero Region: images that look the same
// have hashes that differ in few bits, see Distance. The part is divided into 8 rows of 9 cells, and a bit says that the mean
// grey (Rec. ITU-R BT.601) of a cell is above that of its left neighbour, by two levels of 256 at least; the first row has the
// lowest bits. An image of few pixels uses some for several cells. It takes some ten microseconds and allocates nothing.
//
// Source: N. Krawetz, "Kind of Like That", The Hacker Factor Blog, 2013. The margin is not in it: without one the bits of walls
// and night are noise.
func DifferenceHash(p Pixels, r Region) (hash uint64) {
	if r != (Region{}) {
		p = p.Crop(r)
	}
	if p.Width < 1 || p.Height < 1 {
		return 0
	}
	var across [hashColumns][hashSamples]int // where the samples of a cell are in a row, in bytes
	var columns [hashColumns]int
	for c := range hashColumns {
		columns[c] = sampled(p.Width, c, hashColumns, &across[c])
		for i := range across[c] {
			across[c][i] *= 3
		}
	}
	var down [hashSamples]int
	for r := range hashRows {
		rows := sampled(p.Height, r, hashRows, &down)
		var sums [hashColumns]int
		for _, y := range down[:rows] {
			row := p.Pix[y*p.Stride:][:3*p.Width]
			for c := range sums {
				sum := 0
				for _, x := range across[c][:columns[c]] {
					pixel := row[x : x+3 : x+3]
					sum += 77*int(pixel[0]) + 150*int(pixel[1]) + 29*int(pixel[2])
				}
				sums[c] += sum
			}
		}
		for c := range sums {
			sums[c] /= rows * columns[c]
		}
		for c := range hashColumns - 1 {
			if sums[c+1]-sums[c] >= hashMargin {
				hash |= 1 << (r*(hashColumns-1) + c)
			}
		}
	}
	return hash
}

// sampled fills at with the places, from 0 to below length, of those pixels that count for cell i of n, evenly spaced over it,
// and returns how many these are.
func sampled(length, i, n int, at *[hashSamples]int) int {
	from, to := length*i/n, length*(i+1)/n
	size := max(to-from, 1)
	count := min(size, hashSamples)
	for k := range count {
		at[k] = from + (2*k+1)*size/(2*count)
	}
	return count
}

// Distance is in how many of 64 bits two hashes differ.
func Distance(a, b uint64) int { return bits.OnesCount64(a ^ b) }
