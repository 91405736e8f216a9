package decode

import (
	"errors"
	"fmt"
)

// Values of Config.JPEGScale.
const (
	ScaleExact = "exact" // decode JPEGs at full size: byte for byte what PIL decodes
	ScaleFast  = "fast"  // let libjpeg-turbo decode at 1/2, 1/4 or 1/8, never below 2.4 times the target
)

// maxPixelsBound keeps products of sizes far from overflow.
const maxPixelsBound = 1 << 31

// Config says how much is decoded, and how.
type Config struct {
	// MaxPixels is the largest width times height that is decoded, judged by the header before
	// anything is allocated. 1 to 2^31; zero is invalid. Budget bounds the memory besides.
	MaxPixels int `yaml:"max_pixels"`
	// JPEGScale is "exact" or "fast". Empty is invalid.
	JPEGScale string `yaml:"jpeg_scale"`
}

// Validate returns every fault of c, each with field, value and bound.
func (c Config) Validate() error {
	var errs []error
	if c.MaxPixels < 1 || c.MaxPixels > maxPixelsBound {
		errs = append(errs, fmt.Errorf("max_pixels: %d is not within 1 to %d", c.MaxPixels, maxPixelsBound))
	}
	if c.JPEGScale != ScaleExact && c.JPEGScale != ScaleFast {
		errs = append(errs, fmt.Errorf("jpeg_scale: %q is neither %q nor %q", c.JPEGScale, ScaleExact, ScaleFast))
	}
	return errors.Join(errs...)
}
