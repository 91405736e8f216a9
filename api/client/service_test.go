package client_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hailoclip/api"
	"hailoclip/api/client"
	"hailoclip/cache"
	"hailoclip/cache/sets"
	"hailoclip/configs"
	"hailoclip/configs/models"
	"hailoclip/hailo/demo"
	"hailoclip/hailo/onnx"
	"hailoclip/hailo/open"
	"hailoclip/stages/clip"
	"hailoclip/stages/decode"
)

// address is that of a service with the demo model, "" where ONNX Runtime is missing: then the examples are left out.
var address string

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	state, err := os.MkdirTemp("", "hailo-clip-client-")
	if err == nil {
		defer os.RemoveAll(state)
		var stop func() error
		if stop, err = startService(state); err == nil {
			defer func() {
				if err := stop(); err != nil {
					fmt.Fprintln(os.Stderr, err)
				}
			}()
			return m.Run()
		}
	}
	if !errors.Is(err, onnx.ErrNoLibrary) || os.Getenv("HAILO_TEST_REQUIRE_NATIVE") != "" {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_ = flag.Set("test.skip", "^Example")
	return m.Run()
}

// startService serves the demo model on a free port, with its files in the folder state.
func startService(state string) (stop func() error, err error) {
	ctx, log := context.Background(), slog.New(slog.DiscardHandler)
	file := filepath.Join(state, "empty.yaml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return nil, err
	}
	cfg, err := configs.Read(file, nil, []configs.Override{{Key: "clip.model", Value: "demo"}, {Key: "clip.backend", Value: "cpu"}})
	if err != nil {
		return nil, err
	}
	catalog, err := open.Catalog(state, models.FS)
	if err != nil {
		return nil, err
	}
	encoders := cfg.CLIP.Config
	encoders.CPU, encoders.NPU, encoders.Sim, encoders.LibraryDirs = cfg.CPU, cfg.NPU, cfg.Sim, libraryDirs()
	o, err := open.New(ctx, encoders, catalog, cfg.CLIP.Model, log)
	if err != nil {
		return nil, err
	}
	opened, err := o.Open(ctx)
	if err != nil {
		return nil, err
	}
	kept := clip.SetParts{Limits: sets.Limits{PromptBytes: cfg.Server.MaxPromptBytes}, MaxBytes: clip.MaxSetBytes}
	if kept.File, err = sets.Open(filepath.Join(state, sets.FileName)); err != nil {
		return nil, err
	}
	engine, err := clip.New(cfg.CLIP.Engine, cfg.Performance, clip.Parts{
		Model:    o.Model.Manifest,
		Tokenize: func(text string) ([]int32, bool) { return o.Tokenizer.EncodeCut(text, o.Model.ContextLength) },
		Images:   opened.Images, Texts: opened.Texts, Encoders: opened,
		Store: cache.OpenStore(cfg.TextEmbedding, state, log), Sets: kept,
		Budget: decode.NewBudget(1<<28, 1<<28, cfg.Performance.WorkerThreads, cfg.Performance.MaxQueueSize),
	})
	if err != nil {
		return nil, err
	}
	server, err := api.New(cfg.Server, api.Service{
		Engine: engine, RequestTimeout: cfg.Performance.RequestTimeout, BatchTimeout: cfg.Performance.BatchTimeout, Log: log,
	})
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address = api.Config{}.URLOf(ln.Addr())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	return func() error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return errors.Join(server.Shutdown(ctx), <-served, engine.Close(ctx))
	}, nil
}

// libraryDirs are where "hailo-clip setup" puts ONNX Runtime.
func libraryDirs() (dirs []string) {
	if dir, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(dir, "hailo-clip", "lib"))
	}
	return append(dirs, "/var/lib/hailo-clip/lib")
}

// must is for what cannot fail in a sound test.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// service is a client of the service; it skips the test where there is none.
func service(t *testing.T) *client.Client {
	t.Helper()
	if address == "" {
		t.Skip(onnx.ErrNoLibrary)
	}
	c := must(client.New(address, client.Options{}))
	t.Cleanup(c.Close)
	return c
}

// sample is an image that the demo model knows.
func sample(label string) []byte {
	for _, s := range must(demo.Samples()) {
		if s.Label == label {
			return s.JPEG
		}
	}
	panic("no sample of " + label)
}
