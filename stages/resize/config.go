package resize

// Values of Config.Fit.
const (
	FitCrop   = "crop"   // shorter side to the size, then the middle: CLIP's own preprocessing
	FitSquash = "squash" // both sides to the size, whatever the aspect ratio
	FitPad    = "pad"    // longer side to the size, centred on CLIP's mean colour
)

// Config says how an image is fitted into the square.
type Config struct {
	Fit string `yaml:"fit" bounds:"crop, squash, pad"`
}
