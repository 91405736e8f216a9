// Package decode turns compressed images into packed RGB pixels, as PIL's exif_transpose followed by
// convert("RGB") does: JPEG, PNG, WebP, GIF, BMP and TIFF, of animations the first frame; 16-bit samples are
// cut to their high byte, alpha is dropped and not blended, and EXIF orientation is applied.
//
// JPEGs are decoded by libturbojpeg, opened at run time: byte for byte what PIL decodes. Where the library
// is missing, the Go standard library decodes them, slower and close but not equal (chroma is not
// interpolated).
//
// All input is taken as hostile: the number of pixels is judged by the header before anything is allocated,
// and a panic of a decoder is an error of that image. Nothing is read but the given bytes.
//
// Rare kinds are refused as unsupported: the README has the table. Colour profiles are ignored as PIL ignores them.
package decode

import "context"

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

// Decoder decodes images. It holds settings only and keeps nothing of an image, so that no file affects the next one.
// Safe for concurrent use.
type Decoder struct {
	maxPixels  int
	fastTarget int       // the shorter side that will be needed, of each of parts; 0: decode at full size
	parts      []Part    // none: the whole image
	turbo      *turboLib // nil: no library
}

// NewDecoder returns a decoder for a valid cfg. target is the side, in pixels, of the square that will be made of an image
// (224 for CLIP): "fast" never goes below 2.4 times that on the shorter side. JPEGs go to libturbojpeg where FindLibrary
// finds it.
func NewDecoder(cfg Config, target int) *Decoder {
	lib, _ := loadTurbo() // FindLibrary reports the error to who asks
	return newDecoder(cfg, target, lib)
}

func newDecoder(cfg Config, target int, lib *turboLib) *Decoder {
	d := &Decoder{maxPixels: cfg.MaxPixels, turbo: lib}
	if cfg.JPEGScale == ScaleFast {
		d.fastTarget = target
	}
	return d
}

// Part is a part of an image that becomes a square by itself: its size, in parts of that of the upright image, above 0 to 1.
type Part struct{ Width, Height float64 }

// Inspect reads the head of b and says what decoding it will take. It touches no pixels and allocates next to
// nothing. The plan refers to b, which must stay as it is until the plan is used or dropped. parts are those that are needed of
// the image, none for all of it: "fast" is judged by them, but all is decoded. The error is one
// of ErrNotImage, ErrUnsupportedFormat, ErrTooManyPixels, ErrTruncated or ErrCorrupt, wrapped with the detail.
func (d *Decoder) Inspect(b []byte, parts ...Part) (plan Plan, err error) {
	if len(parts) > 0 && d.fastTarget > 0 {
		own := *d
		own.parts = parts
		d = &own
	}
	format, err := Format(b)
	if err != nil {
		return Plan{}, err
	}
	defer contain(format, &err)
	if plan, err = planners[format](d, b); err != nil {
		return Plan{}, err
	}
	plan.Format = format
	return plan, nil
}

// Decode carries out a plan that Inspect has returned without an error. The caller owns the image and releases it.
// It blocks for as long as the work takes (milliseconds a megapixel), but not much beyond the end of ctx; the decoders of
// JPEG and of lossy WebP cannot be stopped, so for 50 million pixels that may be a second, and 5 s for a WebP made for it.
// The error is one of those of Inspect, or the cause of ctx.
func (d *Decoder) Decode(ctx context.Context, plan Plan) (Image, error) {
	if plan.decode == nil {
		return plan.ready(ctx)
	}
	return plan.run(&task{ctx: ctx, work: plan.Work})
}

// ready is Decode for a plan without decode.
func (plan *Plan) ready(ctx context.Context) (Image, error) {
	if ctx.Err() != nil {
		return Image{}, context.Cause(ctx)
	}
	return plan.image, nil
}

func (plan Plan) run(t *task) (p Image, err error) {
	if plan.decode == nil {
		return plan.ready(t.ctx)
	}
	defer func() {
		if err != nil {
			p.Release()
			p = Image{}
		}
	}()
	defer contain(plan.Format, &err)
	if err := t.spend(0); err != nil {
		return Image{}, err
	}
	if p, err = plan.decode(t); err != nil {
		if t.ctx.Err() != nil { // a decoder that was stopped may have replaced the cause
			err = context.Cause(t.ctx)
		}
		return p, err
	}
	if err := t.spend(plan.turning()); err != nil {
		return p, err
	}
	upright(&p, plan.Orientation)
	p.Format = plan.Format
	return p, nil
}

// DecodeBytes is Inspect and Decode without a deadline, for callers with one image and no budget.
func (d *Decoder) DecodeBytes(b []byte) (Image, error) {
	plan, err := d.Inspect(b)
	if err != nil {
		return Image{}, err
	}
	return d.Decode(context.Background(), plan)
}

// contain turns a panic into an error of the image: of third-party decoders on hostile bytes.
func contain(format string, err *error) {
	if r := recover(); r != nil {
		*err = corrupt("%s: decoder failed: %v", format, r)
	}
}

// checkSize refuses a header with no pixels or with too many.
func (d *Decoder) checkSize(w, h int) error {
	switch {
	case w <= 0 || h <= 0:
		return corrupt("its header says %d x %d pixels", w, h)
	case w > d.maxPixels/h:
		return detailed(ErrTooManyPixels, "%d x %d is more than %d", w, h, d.maxPixels)
	}
	return nil
}
