package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hailoclip/configs"
	"hailoclip/hailo/doctor"
	"hailoclip/hailo/model"
	"hailoclip/hailo/npu"
	"hailoclip/hailo/onnx"
	"hailoclip/stages/decode"
)

type doctorCmd struct {
	JSON bool   `help:"Print JSON."`
	Root string `type:"existingdir" placeholder:"DIR" help:"Examine the system in this folder, by its files only, instead of this machine."`
}

func (c *doctorCmd) Help() string {
	return `Every finding comes with its remedy. Exit code 1 when something that should work does not; a machine
without an NPU is fine. Where the service is installed, its models in ` + systemStateDir + ` are examined,
unless --state-dir says otherwise; only root may look into that folder.`
}

func (c *doctorCmd) Run(ctx context.Context, g *globals) error {
	p, err := g.place()
	if err != nil {
		return err
	}
	env := doctor.Host()
	env.Version, env.Backend = programVersion(), p.cfg.CLIP.Backend
	env.Shared = p.cfg.NPU.Group != "" && p.cfg.NPU.Group != "UNIQUE"
	if c.Root != "" {
		c.onlyFiles(p.cfg, &env)
	} else if err := c.thisMachine(ctx, g, p, &env); err != nil {
		return err
	}
	report := doctor.Run(ctx, env)
	if c.JSON {
		err = printJSON(stdout, report)
	} else {
		err = report.WriteText(styled{stdout}, stdout.color())
	}
	if err == nil && report.ExitCode() != 0 {
		err = exitError(report.ExitCode())
	}
	return err
}

// onlyFiles makes env that of another system: what this machine's kernel, programs, libraries and
// models are says nothing about it.
func (c *doctorCmd) onlyFiles(cfg configs.Config, env *doctor.Env) {
	env.Root, env.Access, env.KernelLog, env.Command = c.Root, nil, nil, nil
	for _, path := range []string{cfg.NPU.Worker, "/usr/bin/" + npu.WorkerName, "/usr/lib/hailo-clip/" + npu.WorkerName} {
		if _, err := os.Stat(filepath.Join(c.Root, path)); path != "" && err == nil {
			env.Worker = path
			return
		}
	}
}

// thisMachine adds to env what this program knows of the machine that it runs on.
func (c *doctorCmd) thisMachine(ctx context.Context, g *globals, p place, env *doctor.Env) error {
	if g.StateDir != "" {
		env.State = p.state
	} else if os.Getenv("STATE_DIRECTORY") == "" && doctor.ServiceInstalled("") {
		p.state, env.State = systemStateDir, systemStateDir
	}
	cfg := p.cfg
	env.Service = func(ctx context.Context) (doctor.Service, bool) { return askService(ctx, cfg.Server) }
	catalog, err := openCatalog(p.state)
	if err != nil {
		return err
	}
	env.Worker, err = npu.FindWorker(cfg.NPU.Worker)
	if err != nil {
		env.Worker = cfg.NPU.Worker // a configured one that is no program is a finding of its own
	}
	if _, err := os.ReadDir(catalog.Dir); errors.Is(err, fs.ErrPermission) {
		env.Extra = func(ctx context.Context) []doctor.Finding {
			return slices.Concat([]doctor.Finding{hiddenState(p.state)}, portFindings(ctx, cfg.Server), configFindings(cfg, env.Root))
		}
		return nil
	}
	m, _, err := catalog.Resolve(ctx, cfg.CLIP.Model)
	if err == nil && !m.Embedded() || cfg.CLIP.Model != model.Auto {
		env.Models = func(ctx context.Context) []doctor.ModelCheck { return modelChecks(ctx, catalog, cfg.CLIP.Model) }
	}
	env.Extra = func(ctx context.Context) []doctor.Finding {
		return slices.Concat(libraryFindings(cfg, p.state, *env), startFindings(ctx, cfg, p.state, *env),
			portFindings(ctx, cfg.Server), configFindings(cfg, env.Root))
	}
	return nil
}

// hiddenState says that nothing is known about models and libraries.
func hiddenState(state string) doctor.Finding {
	return doctor.Finding{Check: "state-folder", Level: doctor.Info, Remedy: "sudo hailo-clip doctor --state-dir " + state,
		What: "This user may not look into " + state + ", so models and ONNX Runtime were not checked."}
}

// modelChecks tells the files of the configured model; "auto" is the one that people want.
func modelChecks(ctx context.Context, catalog *model.Catalog, name string) []doctor.ModelCheck {
	if name == model.Auto {
		name = model.Preferred
	}
	all, err := catalog.List(ctx)
	if err != nil {
		return nil
	}
	var checks []doctor.ModelCheck
	for _, in := range all {
		if in.Manifest.Name != name || in.Builtin {
			continue
		}
		for _, part := range []model.Part{model.CPUPart, model.NPUPart} {
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

func modelCheck(name, backend string, f model.FileState) doctor.ModelCheck {
	c := doctor.ModelCheck{Model: name, Backend: backend, Name: f.Name, Path: f.Path, State: doctor.ModelOK}
	switch {
	case f.Err != nil:
		c.State, c.Detail = doctor.ModelDamaged, f.Err.Error()
	case f.Bytes == 0:
		c.State = doctor.ModelMissing
	case f.SHA256 == "":
		c.State = doctor.ModelUnverified
	case !f.Recorded.IsZero():
		c.Recorded = f.Recorded.Format(time.DateOnly)
	}
	if v, ok := strings.CutPrefix(f.Zoo, "v"); ok { // the zoo's releases are those of HailoRT, see model.ZooRelease
		c.HailoRT = v[:strings.LastIndexByte(v, '.')]
	}
	return c
}

// libraryFindings tells about what runs on the CPU.
func libraryFindings(cfg configs.Config, state string, env doctor.Env) []doctor.Finding {
	runtime := doctor.Finding{Check: "onnxruntime", Level: doctor.OK}
	if lib, err := onnx.Load(cfg.CPU.Library, libraryDirs(state)...); err == nil {
		runtime.What = "ONNX Runtime " + lib.Version + ": " + lib.Path
	} else if cfg.CPU.Library != "" {
		runtime.Level, runtime.What = doctor.Warn, "cpu.library is "+cfg.CPU.Library+", which is no usable ONNX Runtime: nothing can be encoded on the CPU: "+err.Error()
		runtime.Remedy = "correct cpu.library, or leave it empty and run: hailo-clip setup"
	} else {
		runtime.Level, runtime.What, runtime.Remedy = doctor.Warn, "Nothing can be encoded on the CPU: "+err.Error(), env.Own("setup")
	}
	jpeg := doctor.Finding{Check: "libturbojpeg", Level: doctor.OK}
	if lib, err := decode.FindLibrary(); err == nil {
		jpeg.What = lib.Path
	} else {
		jpeg.Level, jpeg.What, jpeg.Remedy = doctor.Warn, "libturbojpeg is not installed: JPEGs are decoded about four times slower.", "sudo apt install libturbojpeg0"
	}
	return []doctor.Finding{runtime, jpeg}
}
