package sink

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// patience with a database that is not there or has no time. Tests have less.
var patience = struct {
	tries       int
	first, most time.Duration // waits between tries, each twice that before
	each        time.Duration // a try may take
}{tries: 10, first: 250 * time.Millisecond, most: 30 * time.Second, each: 2 * time.Minute}

// temporary is an error that another try may not meet.
type temporary struct {
	error
	after time.Duration // the database asked to wait so long; 0: it did not
}

func (e temporary) Unwrap() error { return e.error }

// retry runs try, with a context that ends in time, until its error is none or is not temporary, ctx ends, or it was run so often.
func retry(ctx context.Context, tries int, try func(ctx context.Context) error) error {
	wait := patience.first
	for n := 1; ; n++ {
		once, cancel := context.WithTimeout(ctx, patience.each)
		err := try(once)
		late := once.Err() != nil
		cancel()
		again, ok := errors.AsType[temporary](err)
		if err != nil && ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), err)
		} else if err == nil || !ok && !late || tries == 1 {
			return err
		}
		if n >= tries {
			return fmt.Errorf("after %d tries: %w", n, err)
		}
		timer := time.NewTimer(min(max(wait, again.after), patience.most))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(context.Cause(ctx), err)
		}
		wait *= 2
	}
}
