package bench

// search looks for the largest whole number within 1 to most for which ok holds, taking it for
// granted that ok holds up to some number and not beyond. It starts at start, doubles or halves until it has
// found both sides, and closes in to 2 % or to 1. It returns 0 when ok holds for none. It makes about
// log2(most) + 6 calls at most, and stops with the error of one.
func search(start, most int, ok func(int) (bool, error)) (int, error) {
	good, bad := 0, most+1
	x := min(max(start, 1), most)
	for bad-good > max(1, good/50) {
		held, err := ok(x)
		if err != nil {
			return good, err
		}
		if held {
			good = x
		} else {
			bad = x
		}
		switch {
		case bad == most+1:
			x = min(2*good, most)
		case good == 0:
			x = bad / 2
		default:
			x = good + (bad-good)/2
		}
		if x == 0 || x == good {
			break
		}
	}
	return good, nil
}
