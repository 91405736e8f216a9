package source

import (
	"errors"
	"hailoclip/api/bulk"
	"hailoclip/api/outbound"
)

func openListing(a string, o Options) (bulk.Source, error) { return nil, errors.ErrUnsupported }

type hosts struct{}

func newHosts(o Options, a outbound.Allowed) hosts { return hosts{} }
func (hosts) item(s string) bulk.Item              { return failing(s, errors.ErrUnsupported) }
