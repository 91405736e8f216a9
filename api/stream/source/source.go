// Package source reads frames: from multipart/x-mixed-replace and concatenated JPEG as cameras and ffmpeg send it, from addresses
// that are pulled, and from files, folders and cameras of this machine.
package source

import (
	"context"
	"io"
	"log/slog"
	"time"

	"hailoclip/api/outbound"
	"hailoclip/stages/decode"
)

// Frame is an image of a source. Image is good until the function that got it returns.
type Frame struct {
	Image []byte
	Raw   decode.Raw
	Time  time.Duration // since the start of a file; -1 for what is live
	Name  string        // of the file, in a folder
}

// Options say how a source is opened.
type Options struct {
	FPS     float64 // asked of ffmpeg; 0: as they come
	Local   bool    // files, folders and devices of this machine are allowed: for the command line
	Stdin   io.Reader
	Allowed outbound.Allowed
	Limits  Limits
	Log     *slog.Logger

	// State is told when frames come (nil), and else why not. For Info.Trouble: no credentials.
	State func(error)
}

// Live says whether an address is that of something live, of which frames may be lost, and not of files.
func Live(address string) bool { panic("to be built") }

// Mask returns the address without the password.
func Mask(address string) string { panic("to be built") }

// Check says what is wrong with an address that Run would refuse.
func Check(address string, o Options) error { panic("to be built") }

// Run reads frames from an address and calls each with every one of them until ctx ends, a file has ended (nil), or each returns
// an error. What is live is opened again for ever, after pauses that grow, with jitter. *Error says what is wrong, for good.
func Run(ctx context.Context, address string, o Options, each func(Frame) error) error {
	panic("to be built")
}

// Error says what is wrong with a source.
type Error struct {
	Code string // auth, not_found, codec, timeout, not_allowed, no_ffmpeg, unavailable
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }
