package main

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hailoclip/api"
	"hailoclip/hailo"
	"hailoclip/hailo/model"
	"hailoclip/hailo/open"
	"hailoclip/pipeline"
)

// ready is a backend to which nothing is wrong.
type ready struct{ hailo.Backend }

func (ready) Status() hailo.Status { return hailo.Status{Ready: true} }
func (ready) Info() hailo.Info     { return hailo.Info{Backend: "cpu"} }

// TestStuckWorkersShow has a decoder hang for ever: health says so, degraded while another stands in and unhealthy when
// none is left, and an engine that closes does not wait for the one that was replaced.
func TestStuckWorkersShow(t *testing.T) {
	for stuck, status := range []string{api.Healthy, api.Degraded, api.Unhealthy} {
		synctest.Test(t, func(t *testing.T) {
			hang := make(chan struct{})
			pipe, err := pipeline.New(pipeline.Stage{Name: "decode", Queue: 1, Workers: 1, Work: func(int, []*pipeline.Job) { <-hang }})
			if err != nil {
				t.Fatal(err)
			}
			e := &engine{log: slog.New(slog.DiscardHandler), model: &model.Model{}, pipe: pipe, encoders: &open.Encoders{Images: ready{}}}
			for range stuck {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				if err := pipe.Do(ctx, &pipeline.Job{}); err == nil {
					t.Error("the job was done")
				}
				cancel()
				time.Sleep(time.Minute)
			}
			if h := e.health(); h.Status != status || strings.Contains(h.Reason, "decode") != (stuck > 0) {
				t.Errorf("%d stuck: %+v", stuck, h)
			}
			if err := (&service{engine: e, server: &api.Server{}}).stuck(); (err != nil) != (status == api.Unhealthy) {
				t.Errorf("%d stuck: to the watchdog, %v", stuck, err)
			}
			if stuck < 2 {
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := e.close(ctx); (err == nil) != (stuck == 0) {
					t.Error("closed:", err)
				}
				if waited := time.Since(start); waited != 0 {
					t.Errorf("%d stuck: closing took %v", stuck, waited)
				}
			}
			close(hang)
			synctest.Wait()
			if h := e.health(); h.Status != api.Healthy {
				t.Errorf("%d were stuck: %+v", stuck, h)
			}
			if err := pipe.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
