package source

import (
	"context"
	"hailoclip/api/bulk"
)

type archive struct {
	o          Options
	path, name string
}

func compressionOf(path string) string                                         { return "" }
func (a *archive) Name() string                                                { return a.name }
func (a *archive) Each(ctx context.Context, found func(bulk.Item) error) error { return nil }
