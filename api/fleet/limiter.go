package fleet

import "sync"

// limiter bounds what is under way for others, in all and for each of them: nobody gets more than what is left free, so that one alone
// has half of all and two have a third each. Safe for concurrent use.
type limiter struct {
	maxImages, maxBytes int

	mu            sync.Mutex
	images, bytes int
	by            map[string]int // images
}

// newLimiter bounds images and their bytes.
func newLimiter(images, bytes int) *limiter {
	return &limiter{maxImages: images, maxBytes: bytes, by: map[string]int{}}
}

// enter begins with an image of who, which leave ends, or says that this would be too much.
func (l *limiter) enter(who string, bytes int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.room(who) || l.bytes+bytes > l.maxBytes {
		return false
	}
	l.images, l.bytes = l.images+1, l.bytes+bytes
	l.by[who]++
	return true
}

// takes says that enter would let in a small image.
func (l *limiter) takes(who string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.room(who) && l.bytes < l.maxBytes
}

func (l *limiter) room(who string) bool { return l.by[who] < l.maxImages-l.images }

func (l *limiter) leave(who string, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.images, l.bytes = l.images-1, l.bytes-bytes
	if l.by[who]--; l.by[who] == 0 {
		delete(l.by, who)
	}
}

// len is how many images are under way.
func (l *limiter) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.images
}
