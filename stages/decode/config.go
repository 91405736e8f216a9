package decode

// Values of Config.JPEGScale.
const (
	ScaleExact = "exact" // decode JPEGs at full size: byte for byte what PIL decodes
	ScaleFast  = "fast"  // let libjpeg-turbo decode at 1/2, 1/4 or 1/8, never below 2.4 times the target
)

// Config says how much is decoded, and how. The zero value is invalid.
type Config struct {
	// MaxPixels is the largest width times height that is decoded, judged by the header before
	// anything is allocated. Its bound keeps products of sizes far from overflow. Budget bounds the memory besides.
	MaxPixels int    `yaml:"max_pixels" bounds:"1 to 2147483648"`
	JPEGScale string `yaml:"jpeg_scale" bounds:"exact, fast"`
}
