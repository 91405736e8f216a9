package pipeline

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Duration is a time.Duration that configuration files may write as a number of seconds (30,
// 0.5) or with a unit ("30s", "500ms").
type Duration time.Duration

// maxSeconds keeps a number of seconds inside time.Duration.
const maxSeconds = float64(math.MaxInt64 / int64(time.Second))

// UnmarshalText reads either form.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	if seconds, err := strconv.ParseFloat(s, 64); err == nil {
		if math.IsNaN(seconds) || math.Abs(seconds) >= maxSeconds {
			return fmt.Errorf("%q is out of range for a duration", s)
		}
		*d = Duration(seconds * float64(time.Second))
		return nil
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a duration: write seconds (30) or a unit (30s, 500ms)", s)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes the form with a unit.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d Duration) String() string { return time.Duration(d).String() }

// Std is d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }
