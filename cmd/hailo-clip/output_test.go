package main

import (
	"strings"
	"testing"

	"github.com/mattn/go-runewidth"
)

// TestColumnsLineUp has texts whose characters take one cell, two, and none of their own.
func TestColumnsLineUp(t *testing.T) {
	runewidth.DefaultCondition.EastAsianWidth = false // whatever the language of the machine: there … takes two
	texts := []string{"a photo of a cat", "一张猫的照片", "고양이 사진", "cafe\u0301", strings.Repeat("猫", 40), strings.Repeat("cat ", 20)}
	width := longest(texts...)
	if width != textWidth {
		t.Errorf("a column of %d cells, want %d", width, textWidth)
	}
	for _, text := range texts {
		if cells := runewidth.StringWidth(pad(text, width)); cells != width {
			t.Errorf("%q takes %d cells, want %d", pad(text, width), cells, width)
		}
	}
	if got := longest("猫", "cat"); got != 3 {
		t.Errorf("longest is %d cells, want 3", got)
	}
	if got := pad("猫猫", 3); got != "猫…" {
		t.Errorf("cut to %q", got)
	}
}
