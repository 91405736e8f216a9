package onnx

// normaliser turns 8-bit RGB pixels into the model's floats: (p/255 - mean) / std.
type normaliser [3][256]float32

func newNormaliser(mean, std [3]float32) *normaliser {
	var t normaliser
	for c := range t {
		for p := range t[c] {
			t[c][p] = float32((float64(p)/255 - float64(mean[c])) / float64(std[c]))
		}
	}
	return &t
}

// planes writes interleaved pixels (RGB RGB ...) as three planes, one for each colour.
// out is as long as pixels. Four at a time: a third faster than one by one.
func (t *normaliser) planes(out []float32, pixels []byte) {
	n := len(pixels) / 3
	r, g, b := out[:n], out[n:2*n], out[2*n:3*n]
	red, green, blue := &t[0], &t[1], &t[2]
	i := 0
	for ; i+4 <= n; i += 4 {
		p := (*[12]byte)(pixels[3*i:])
		r4, g4, b4 := (*[4]float32)(r[i:]), (*[4]float32)(g[i:]), (*[4]float32)(b[i:])
		r4[0], r4[1], r4[2], r4[3] = red[p[0]], red[p[3]], red[p[6]], red[p[9]]
		g4[0], g4[1], g4[2], g4[3] = green[p[1]], green[p[4]], green[p[7]], green[p[10]]
		b4[0], b4[1], b4[2], b4[3] = blue[p[2]], blue[p[5]], blue[p[8]], blue[p[11]]
	}
	for ; i < n; i++ {
		r[i], g[i], b[i] = red[pixels[3*i]], green[pixels[3*i+1]], blue[pixels[3*i+2]]
	}
}
