package main

import (
	"context"
	"fmt"

	"hailoclip/hailo/device"
	"hailoclip/hailo/onnx"
	"hailoclip/stages/decode"
)

type setupCmd struct {
	Arch string `enum:",amd64,arm64" default:"" placeholder:"ARCH" help:"Fetch for this architecture instead of this machine's (amd64, arm64)."`
}

func (c *setupCmd) Help() string {
	return `Fetches ONNX Runtime ` + onnx.FetchVersion + ` from the vendor's release page, checks its digest, and puts it into lib/ of
the state folder. Does nothing when it is there. A download that was interrupted goes on where it stopped.

Examples:
  hailo-clip setup
  sudo hailo-clip setup --state-dir ` + device.ServiceState
}

func (c *setupCmd) Run(ctx context.Context, g *globals) error {
	state, err := g.state()
	if err != nil {
		return err
	}
	bar := newByteBars()
	path, err := onnx.Fetch(ctx, libraryDirs(state)[0], c.Arch, func(done, total int64) { bar.set("ONNX Runtime", done, total) })
	bar.done(err == nil)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "ONNX Runtime %s: %s\n", onnx.FetchVersion, path)
	if lib, err := decode.FindLibrary(); err != nil {
		fmt.Fprintf(stdout, "libturbojpeg:  not found, JPEGs are decoded about four times slower: sudo apt install libturbojpeg0\n")
	} else {
		fmt.Fprintf(stdout, "libturbojpeg:  %s\n", lib)
	}
	return nil
}
