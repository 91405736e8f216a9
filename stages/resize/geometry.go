package resize

import "math"

// geometry says which part of the scaled image is wanted, and where it goes. The scaled image itself
// never exists: only its window of columns x rows is computed.
type geometry struct {
	width, height int // of the whole image after scaling
	left, top     int // first column and row of the window
	columns, rows int // size of the window, at most size x size
	x, y          int // where the window goes in the square
}

// fitted returns the geometry that brings w x h into size x size.
func fitted(fit string, w, h, size int) geometry {
	switch fit {
	case FitSquash:
		return geometry{width: size, height: size, columns: size, rows: size}
	case FitPad:
		g := geometry{width: size, height: size}
		if w >= h {
			g.height = max(size*h/w, 1)
		} else {
			g.width = max(size*w/h, 1)
		}
		g.columns, g.rows = g.width, g.height
		g.x, g.y = (size-g.width)/2, (size-g.height)/2
		return g
	}
	// As torchvision's Resize and CenterCrop: the longer side is cut to an integer, the margin is rounded
	// as Python does.
	g := geometry{width: size, height: size, columns: size, rows: size}
	if w <= h {
		g.height = size * h / w
	} else {
		g.width = size * w / h
	}
	g.left = int(math.RoundToEven(float64(g.width-size) / 2))
	g.top = int(math.RoundToEven(float64(g.height-size) / 2))
	return g
}
