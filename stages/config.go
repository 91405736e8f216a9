package stages

import (
	"hailoclip/stages/decode"
	"hailoclip/stages/resize"
)

// Config says how an image becomes what the model sees. Its keys stand in the section "clip".
type Config struct {
	Decode decode.Config `yaml:",inline"`
	Resize resize.Config `yaml:",inline"`
}
