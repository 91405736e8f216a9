package main

import (
	"context"
	"encoding/json"
	"os"
	"slices"

	"golang.org/x/term"

	"hailoclip/configs"
	"hailoclip/hailo"
	"hailoclip/hailo/doctor"
	"hailoclip/hailo/npu"
	"hailoclip/hailo/onnx"
	"hailoclip/stages/decode"
)

type doctorCmd struct {
	JSON bool   `help:"Print JSON."`
	Root string `hidden:"" type:"existingdir" help:"Examine this folder instead of /."`
}

func (c *doctorCmd) Help() string {
	return `Every finding comes with its remedy. Exit code 1 when something that should work does not; a machine
without an NPU is fine.`
}

func (c *doctorCmd) Run(ctx context.Context, g *globals) error {
	cfg, _, err := g.load()
	if err != nil {
		return err
	}
	state, err := g.stateDir()
	if err != nil {
		return err
	}
	store, err := openStore(state)
	if err != nil {
		return err
	}
	env := doctor.Host()
	if c.Root != "" {
		env.Root = c.Root
	}
	env.Version, env.Backend = programVersion(), cfg.CLIP.Backend
	env.Worker, _ = npu.FindWorker(cfg.NPU.Worker)
	env.Models = func(ctx context.Context) []doctor.ModelCheck { return modelChecks(store, cfg.CLIP.Model) }
	env.Extra = func(context.Context) []doctor.Finding { return libraryFindings(cfg, store, state) }
	report := doctor.Run(ctx, env)
	if c.JSON {
		err = json.NewEncoder(os.Stdout).Encode(report)
	} else {
		err = report.WriteText(os.Stdout, term.IsTerminal(int(os.Stdout.Fd())))
	}
	if err == nil && report.ExitCode() != 0 {
		err = exitError(report.ExitCode())
	}
	return err
}

// modelChecks tells the files of the configured model; "auto" counts as the one that people want.
func modelChecks(store *hailo.Store, name string) []doctor.ModelCheck {
	if name == hailo.AutoModel {
		name = hailo.PreferredModel
	}
	all, err := store.List()
	if err != nil {
		return nil
	}
	var checks []doctor.ModelCheck
	for _, in := range all {
		if in.Manifest.Name != name || in.Builtin {
			continue
		}
		for _, part := range []hailo.Part{hailo.CPUPart, hailo.NPUPart} {
			names := in.Manifest.PartFiles(part)
			for _, f := range in.Files {
				if slices.Contains(names, f.Name) {
					checks = append(checks, modelCheck(name, string(part), f))
				}
			}
		}
	}
	return checks
}

func modelCheck(model, backend string, f hailo.FileState) doctor.ModelCheck {
	c := doctor.ModelCheck{Model: model, Backend: backend, Name: f.Name, Path: f.Path, State: doctor.ModelOK}
	switch {
	case f.Err != nil:
		c.State, c.Detail = doctor.ModelDamaged, f.Err.Error()
	case f.Bytes == 0:
		c.State = doctor.ModelMissing
	case f.SHA256 == "":
		c.State = doctor.ModelUnverified
	}
	return c
}

// libraryFindings tells about what runs on the CPU, and what the configuration comes to.
func libraryFindings(cfg configs.Config, store *hailo.Store, state string) []doctor.Finding {
	var found []doctor.Finding
	if lib, err := onnx.Load(cfg.CPU.Library, libraryDirs(state)...); err != nil {
		found = append(found, doctor.Finding{Check: "onnxruntime", Level: doctor.Warn,
			What: "ONNX Runtime is not installed: nothing can be encoded on the CPU.", Remedy: "hailo-clip setup"})
	} else {
		found = append(found, doctor.Finding{Check: "onnxruntime", Level: doctor.OK, What: "ONNX Runtime " + lib.Version + ": " + lib.Path})
	}
	if lib, err := decode.FindLibrary(); err != nil {
		found = append(found, doctor.Finding{Check: "libturbojpeg", Level: doctor.Warn,
			What: "libturbojpeg is not installed: JPEGs are decoded about four times slower.", Remedy: "sudo apt install libturbojpeg0"})
	} else {
		found = append(found, doctor.Finding{Check: "libturbojpeg", Level: doctor.OK, What: "libturbojpeg: " + lib.Path})
	}
	model, why, err := store.Resolve(cfg.CLIP.Model)
	if err != nil {
		return append(found, doctor.Finding{Check: "model", Level: doctor.Fail, What: err.Error()})
	}
	found = append(found, doctor.Finding{Check: "model", Level: doctor.Info, What: "The service would use model " + model.Name + ": " + why + "."})
	kind, why := chooseBackend(cfg, model)
	return append(found, doctor.Finding{Check: "backend", Level: doctor.Info, What: "It would encode on the " + kind + ": " + why + "."})
}
