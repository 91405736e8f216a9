package source

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"hailoclip/api/outbound"
)

// Named are addresses of sources by name, as the configuration has them. In YAML their secrets are masked.
type Named map[string]string

func (n Named) MarshalYAML() (any, error) {
	shown := map[string]string{}
	for name, address := range n {
		shown[name] = Mask(address)
	}
	return shown, nil
}

// CheckNamed says what is wrong with an address of the configuration: one that is pulled, or a file, a folder or a camera of this
// machine, which need not be there yet.
func CheckNamed(address string) error {
	switch {
	case strings.Contains(address, masked):
		return fail(codeNotAllowed, "has %s, which stands for what is not shown", masked)
	case filepath.IsAbs(address):
		return nil
	}
	return Check(address, Options{Allowed: outbound.Any()})
}

// errTaken ends First.
var errTaken = errors.New("a frame is there")

// First returns the first frame of an address, in memory that o.Buffers, which must be there, has lent; it is the caller's. It tries
// once, and blocks until the frame is there or ctx ends. Errors: *Error, and the cause of ctx.
func First(ctx context.Context, address string, o Options) (frame Frame, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	o.State = func(trouble error) {
		if trouble != nil {
			cancel(trouble)
		}
	}
	err = Run(ctx, address, o, func(f Frame) error {
		frame = f
		return errTaken
	})
	switch {
	case errors.Is(err, errTaken):
		return frame, nil
	case ctx.Err() != nil:
		return Frame{}, context.Cause(ctx)
	case err == nil:
		return Frame{}, fail(codeUnavailable, "the source has ended")
	}
	return Frame{}, err
}
