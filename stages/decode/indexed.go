package decode

// colorTable has the colours of all palette indices.
type colorTable [256][3]byte

// grayTable is the table of an image without a palette. PIL starts every palette with it, so an index beyond the
// palette of a file is a gray as well.
func grayTable() *colorTable {
	var c colorTable
	for i := range c {
		c[i] = [3]byte{byte(i), byte(i), byte(i)}
	}
	return &c
}

// indexWriter writes a stream of palette indices into the rows of an image.
type indexWriter struct {
	task    *task
	colors  *colorTable
	next    func() []byte // the pixels of the next row, nil after the last one
	row     []byte        // what is to be written of the current one
	written int           // bytes that are not spent yet: less than a row or a piece of one
}

// write writes indices, and drops those behind the last row. It tells whether more are to come.
func (w *indexWriter) write(indices []byte) (more bool, err error) {
	const piece = 32 << 10
	for {
		n := min(len(indices), len(w.row)/3)
		row := w.row[:3*n]
		for _, index := range indices[:n] {
			*(*[3]byte)(row) = w.colors[index]
			row = row[3:]
		}
		indices, w.row, w.written = indices[n:], w.row[3*n:], w.written+3*n
		full := len(w.row) == 0
		if full || w.written >= piece {
			if err := w.task.spend(w.written); err != nil {
				return false, err
			}
			w.written = 0
		}
		if !full {
			return true, nil
		}
		if w.row = w.next(); w.row == nil {
			return false, nil
		}
	}
}
