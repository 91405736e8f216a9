package hailo

import "testing"

// TestFrameForgets takes the same frame again: nothing of the embedding before is in it.
func TestFrameForgets(t *testing.T) {
	frames := NewHeapFrames(1, 2, 3)
	f, err := frames.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	copy(f.Embedding, []float32{1, 2, 3})
	f.Release()
	if f, err = frames.Get(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, v := range f.Embedding {
		if v != 0 {
			t.Errorf("number %d is %v", i, v)
		}
	}
	f.Release()
}
