package main

import (
	"context"
	"os"
	"slices"
	"strings"

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
	p, err := g.place()
	if err != nil {
		return err
	}
	cfg, state := p.cfg, p.state
	store, err := openStore(state)
	if err != nil {
		return err
	}
	env := doctor.Host()
	if c.Root != "" {
		env.Root = c.Root
	}
	env.Version, env.Backend = programVersion(), cfg.CLIP.Backend
	env.Shared = cfg.NPU.Group != "" && cfg.NPU.Group != "UNIQUE"
	env.Worker, err = npu.FindWorker(cfg.NPU.Worker)
	if err != nil {
		env.Worker = cfg.NPU.Worker // a configured one that is no program is a finding of its own
	}
	model, why, err := store.Resolve(cfg.CLIP.Model)
	if err == nil && !model.Embedded() || cfg.CLIP.Model != hailo.AutoModel {
		env.Models = func(context.Context) []doctor.ModelCheck { return modelChecks(store, cfg.CLIP.Model) }
	}
	env.Extra = func(context.Context) []doctor.Finding {
		return append(libraryFindings(cfg, state), choiceFindings(cfg, env.Root, model, why, err)...)
	}
	report := doctor.Run(ctx, env)
	if c.JSON {
		err = printJSON(os.Stdout, report)
	} else {
		err = report.WriteText(os.Stdout, term.IsTerminal(int(os.Stdout.Fd())))
	}
	if err == nil && report.ExitCode() != 0 {
		err = exitError(report.ExitCode())
	}
	return err
}

// modelChecks tells the files of the configured model; "auto" is the one that people want.
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
	if v, ok := strings.CutPrefix(f.Zoo, "v"); ok { // the zoo's releases are those of HailoRT, see hailo.ZooRelease
		c.HailoRT = v[:strings.LastIndexByte(v, '.')]
	}
	return c
}

// libraryFindings tells about what runs on the CPU.
func libraryFindings(cfg configs.Config, state string) []doctor.Finding {
	runtime := doctor.Finding{Check: "onnxruntime", Level: doctor.OK}
	if lib, err := onnx.Load(cfg.CPU.Library, libraryDirs(state)...); err == nil {
		runtime.What = "ONNX Runtime " + lib.Version + ": " + lib.Path
	} else {
		runtime.Level, runtime.What, runtime.Remedy = doctor.Warn, "ONNX Runtime is not installed: nothing can be encoded on the CPU.", "hailo-clip setup"
	}
	jpeg := doctor.Finding{Check: "libturbojpeg", Level: doctor.OK}
	if lib, err := decode.FindLibrary(); err == nil {
		jpeg.What = lib.Path
	} else {
		jpeg.Level, jpeg.What, jpeg.Remedy = doctor.Warn, "libturbojpeg is not installed: JPEGs are decoded about four times slower.", "sudo apt install libturbojpeg0"
	}
	return []doctor.Finding{runtime, jpeg}
}

// choiceFindings tells what the configuration comes to on this machine.
func choiceFindings(cfg configs.Config, root string, model *hailo.Model, why string, err error) []doctor.Finding {
	if err != nil {
		return []doctor.Finding{{Check: "model", Level: doctor.Fail, What: err.Error()}}
	}
	choice := doctor.Finding{Check: "model", Level: doctor.OK, What: "The service would use model " + model.Name + ": " + why + "."}
	if model.Embedded() && cfg.CLIP.Model == hailo.AutoModel {
		choice.Level, choice.Remedy = doctor.Warn, "hailo-clip models pull "+hailo.PreferredModel
		choice.What = "No real model is installed: the service would use the small demo model, which knows drawings, not photographs."
	}
	kind, reason := chooseBackend(cfg, model, root)
	return []doctor.Finding{choice, {Check: "backend", Level: doctor.Info, What: "It would encode on the " + kind + ": " + reason + "."}}
}
