package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"hailoclip/api"
	"hailoclip/cache"
	"hailoclip/configs"
	"hailoclip/hailo/doctor"
	"hailoclip/hailo/model"
	"hailoclip/hailo/onnx"
	"hailoclip/hailo/open"
)

// startFindings goes through the start of the service by the functions that it uses: what stops it there
// fails here. The device is left alone, since one that is lost stops no start.
func startFindings(ctx context.Context, cfg configs.Config, state string, env doctor.Env) []doctor.Finding {
	o, err := newOpener(ctx, cfg, state, slog.New(slog.DiscardHandler))
	if err != nil {
		return []doctor.Finding{stopped("model", err, cfg, env)}
	}
	choice := doctor.Finding{Check: "model", Level: doctor.OK, What: "The service would use model " + o.Model.Name + ": " + o.ModelWhy + "."}
	if o.Model.Embedded() && cfg.CLIP.Model == model.Auto {
		choice.Level, choice.Remedy = doctor.Warn, env.Own("models pull "+model.Preferred)
		choice.What = "No real model is installed: the service would use the small demo model, which knows drawings, not photographs."
	}
	p, err := o.Check(ctx)
	if err != nil {
		return []doctor.Finding{choice, stopped("backend", err, cfg, env)}
	}
	found := []doctor.Finding{choice, {Check: "backend", Level: doctor.Info, What: "It would encode on the " + p.Kind + ": " + p.Why + "."}}
	if openConfig(cfg, state).MadeUpVectors() {
		found = append(found, doctor.Finding{Check: "backend", Level: doctor.Warn, What: open.MadeUpVectorsWarning})
	}
	return found
}

// stopped is what ends a start.
func stopped(check string, err error, cfg configs.Config, env doctor.Env) doctor.Finding {
	f := doctor.Finding{Check: check, Level: doctor.Fail, What: "The service would not start: " + err.Error()}
	switch {
	case errors.Is(err, onnx.ErrNoLibrary) && cfg.CPU.Library == "":
		f.Remedy = env.Own("setup")
	case errors.Is(err, onnx.ErrNoLibrary):
		f.Remedy = "# correct cpu.library, or leave it empty and run:\n" + env.Own("setup")
	case errors.Is(err, model.ErrNotInstalled) && cfg.CLIP.Model != model.Auto:
		f.Remedy = env.Own("models pull " + cfg.CLIP.Model)
	}
	return f
}

// portFindings tries the address of the service, unless that is there and answers.
func portFindings(ctx context.Context, c api.Config) []doctor.Finding {
	if answersAsService(ctx, c) {
		return []doctor.Finding{{Check: "port", Level: doctor.OK, What: "The service answers on " + c.Addr() + "."}}
	}
	ln, err := listen(c)
	if err != nil {
		return []doctor.Finding{{Check: "port", Level: doctor.Fail, What: "The service would not start: " + err.Error(),
			Remedy: "# correct server.host and server.port, or end what uses the port"}}
	}
	ln.Close()
	return fileFindings(c)
}

// fileFindings tells how many connections the limit of open files leaves to a service that is started from
// here.
func fileFindings(c api.Config) []doctor.Finding {
	const remedy = "# raise the limit: ulimit -n in the shell, LimitNOFILE in the systemd unit"
	switch fitted, err := fitDescriptors(c, slog.New(slog.DiscardHandler)); {
	case err != nil:
		return []doctor.Finding{{Check: "open-files", Level: doctor.Fail, What: "The service would not start: " + err.Error(), Remedy: remedy}}
	case fitted.MaxConnections < c.MaxConnections:
		return []doctor.Finding{{Check: "open-files", Level: doctor.Warn, Remedy: remedy,
			What: fmt.Sprintf("Started from here, the service could open files for %d connections, not for the %d of server.max_connections.", fitted.MaxConnections, c.MaxConnections)}}
	}
	return nil
}

// configFindings tells what the configuration allows but nobody wants.
func configFindings(cfg configs.Config, root string) []doctor.Finding {
	var found []doctor.Finding
	for _, warning := range cfg.Warnings() {
		found = append(found, doctor.Finding{Check: "configuration", Level: doctor.Warn, What: warning})
	}
	if err := cache.CheckPrompts(cfg.TextEmbedding, cfg.Server.MaxPromptBytes); err != nil {
		found = append(found, doctor.Finding{Check: "configuration", Level: doctor.Warn, What: err.Error()})
	}
	if quota := doctor.Quota(root); configs.LowQuota(quota) {
		found = append(found, doctor.Finding{Check: "service-unit", Level: doctor.Warn,
			What: "CPUQuota of the systemd unit: " + configs.QuotaWarning(quota) + ".",
			Remedy: "sudo mkdir -p /etc/systemd/system/hailo-clip.service.d\n" +
				"printf '[Service]\\nCPUQuota=\\n' | sudo tee /etc/systemd/system/hailo-clip.service.d/cpu-quota.conf\n" +
				"sudo systemctl daemon-reload\nsudo systemctl restart hailo-clip"})
	}
	return found
}
