package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"hailoclip/api"
	"hailoclip/api/client"
	"hailoclip/configs"
	"hailoclip/hailo/device"
	"hailoclip/hailo/doctor"
	"hailoclip/hailo/model"
	"hailoclip/hailo/onnx"
	"hailoclip/hailo/open"
	"hailoclip/stages/clip"
	"hailoclip/stages/decode"
)

// findings are those of a start of the service, found by the functions that it uses: what stops it there fails here. The
// device is left alone, since one that is lost stops no start.
type findings struct {
	place
	env doctor.Env
	all []doctor.Finding
}

func (f *findings) add(check string, level doctor.Level, what, remedy string) {
	f.all = append(f.all, doctor.Finding{Check: check, Level: level, What: what, Remedy: remedy})
}

// stops adds what ends a start.
func (f *findings) stops(check string, err error, remedy string) {
	f.add(check, doctor.Fail, "The service would not start: "+err.Error(), remedy)
}

// libraries tells about what runs on the CPU.
func (f *findings) libraries() {
	lib, err := onnx.Load(f.cfg.CPU.Library, libraryDirs(f.state)...)
	switch {
	case err == nil:
		f.add("onnxruntime", doctor.OK, "ONNX Runtime "+lib.Version+": "+lib.Path, "")
	case f.cfg.CPU.Library != "":
		f.add("onnxruntime", doctor.Warn, "cpu.library is "+f.cfg.CPU.Library+", which is no usable ONNX Runtime: "+
			"nothing can be encoded on the CPU: "+err.Error(), "correct cpu.library, or leave it empty and run: hailo-clip setup")
	default:
		f.add("onnxruntime", doctor.Warn, "Nothing can be encoded on the CPU: "+err.Error(), f.env.Own("setup"))
	}
	if jpeg, err := decode.FindLibrary(); err == nil {
		f.add("libturbojpeg", doctor.OK, jpeg, "")
	} else {
		f.add("libturbojpeg", doctor.Warn, "libturbojpeg is not installed: JPEGs are decoded about four times slower.",
			"sudo apt install libturbojpeg0")
	}
}

// start opens the encoders, but for the device.
func (f *findings) start(ctx context.Context) {
	o, err := f.opener(ctx, slog.New(slog.DiscardHandler))
	if err != nil {
		f.stops("model", err, f.install(err))
		return
	}
	if o.Model.Embedded() && f.cfg.CLIP.Model == model.Auto {
		f.add("model", doctor.Warn, "No real model is installed: the service would use the small demo model, which knows drawings, not photographs.",
			f.env.Own("models pull "+model.Preferred))
	} else {
		f.add("model", doctor.OK, "The service would use model "+o.Model.Name+": "+o.ModelWhy+".", "")
	}
	p, err := o.Check(ctx)
	if err != nil {
		f.stops("backend", err, f.install(err))
		return
	}
	f.add("backend", doctor.Info, "It would encode on the "+p.Kind+": "+p.Why+".", "")
	if f.encoders().MadeUpVectors() {
		f.add("backend", doctor.Warn, open.MadeUpVectorsWarning, "")
	}
}

// install is the remedy for what is not installed.
func (f *findings) install(err error) string {
	switch {
	case errors.Is(err, onnx.ErrNoLibrary) && f.cfg.CPU.Library != "":
		return "# correct cpu.library, or leave it empty and run:\n" + f.env.Own("setup")
	case errors.Is(err, onnx.ErrNoLibrary):
		return f.env.Own("setup")
	case errors.Is(err, model.ErrNotInstalled) && f.cfg.CLIP.Model != model.Auto:
		return f.env.Own("models pull " + f.cfg.CLIP.Model)
	}
	return ""
}

// port tries the address of the service, unless that is there and answers.
func (f *findings) port(ctx context.Context) {
	c := f.cfg.Server
	if _, answers := askHealth(ctx, c); answers {
		f.add("port", doctor.OK, "The service answers on "+c.Addr()+".", "")
		return
	}
	ln, err := listen(c)
	if err != nil {
		f.stops("port", err, "# correct server.host and server.port, or end what uses the port")
		return
	}
	ln.Close()
	// How many connections the limit of open files leaves to a service that is started from here.
	const remedy = "# raise the limit: ulimit -n in the shell, LimitNOFILE in the systemd unit"
	fitted, err := fitDescriptors(f.cfg, 1, slog.New(slog.DiscardHandler))
	if err != nil {
		f.stops("open-files", err, remedy)
	} else if fitted.MaxConnections < c.MaxConnections {
		f.add("open-files", doctor.Warn, fmt.Sprintf("Started from here, the service could open files for %d connections, not for the %d of server.max_connections.",
			fitted.MaxConnections, c.MaxConnections), remedy)
	}
}

// configuration tells what the configuration allows but nobody wants.
func (f *findings) configuration() {
	for _, warning := range f.cfg.Warnings() {
		f.add("configuration", doctor.Warn, warning, "")
	}
	if _, err := clip.ReadPrompts(f.cfg.TextEmbedding, f.cfg.Server.MaxPromptBytes); err != nil {
		f.add("configuration", doctor.Warn, err.Error(), "")
	}
	if low := configs.QuotaWarning(device.Root(f.env.Root).Unit().Quota); low != "" {
		f.add("service-unit", doctor.Warn, "CPUQuota of the systemd unit: "+low+".",
			"sudo mkdir -p /etc/systemd/system/hailo-clip.service.d\n"+
				"printf '[Service]\\nCPUQuota=\\n' | sudo tee /etc/systemd/system/hailo-clip.service.d/cpu-quota.conf\n"+
				"sudo systemctl daemon-reload\nsudo systemctl restart hailo-clip")
	}
}

// askService returns what the service on the configured address tells of the chip; nil if none
// answers, or it encodes elsewhere.
func askService(ctx context.Context, c api.Config) *doctor.Service {
	health, ok := askHealth(ctx, c)
	if !ok || health.Backend != "npu" || health.RuntimeMode != "real" {
		return nil
	}
	var s clip.Stats
	err := askOwn(ctx, c, func(ctx context.Context, service *client.Client) error { return service.Stats(ctx, &s) })
	if err != nil || s.NPU == nil {
		return nil
	}
	answer := &doctor.Service{Reason: health.Reason, Throttling: s.NPU.Throttling, Zone: s.NPU.Zone, Rate: s.NPU.ImagesPerSec}
	for _, t := range s.NPU.Temperature {
		if t != nil {
			answer.Temperature = append(answer.Temperature, *t)
		}
	}
	return answer
}
