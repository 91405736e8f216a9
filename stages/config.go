package stages

import (
	"errors"

	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

// Config says how an image becomes what the model sees. Its keys stand in the section "clip".
type Config struct {
	Decode decode.Config `yaml:",inline"`
	Resize resize.Config `yaml:",inline"`
}

// Validate returns all errors, each starting with the field.
func (c Config) Validate() error {
	return errors.Join(c.Decode.Validate(), c.Resize.Validate())
}
