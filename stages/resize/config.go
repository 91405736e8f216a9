package resize

import (
	"fmt"
	"slices"
)

// Values of Config.Fit.
const (
	FitCrop   = "crop"   // shorter side to the size, then the middle: CLIP's own preprocessing
	FitSquash = "squash" // both sides to the size, whatever the aspect ratio
	FitPad    = "pad"    // longer side to the size, centred on CLIP's mean colour
)

// Config says how an image is fitted into the square.
type Config struct {
	Fit string `yaml:"fit"` // "crop", "squash" or "pad"; empty is invalid
}

// Validate returns an error that names field, value and bound.
func (c Config) Validate() error {
	if fits := []string{FitCrop, FitSquash, FitPad}; !slices.Contains(fits, c.Fit) {
		return fmt.Errorf("fit: %q is none of %q", c.Fit, fits)
	}
	return nil
}
