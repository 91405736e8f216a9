package main

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"hailoclip/configs"
	"hailoclip/hailo/device"
	"hailoclip/hailo/doctor"
	"hailoclip/hailo/model"
	"hailoclip/hailo/npu"
)

type doctorCmd struct {
	JSON bool   `help:"Print JSON."`
	Root string `type:"existingdir" placeholder:"DIR" help:"Examine the system in this folder, by its files only, instead of this machine."`
}

func (c *doctorCmd) Help() string {
	return `Every finding comes with its remedy. Exit code 1 when something that should work does not; a machine
without an NPU is fine. Where the service is installed, its models in ` + device.ServiceState + ` are examined,
unless --state-dir says otherwise; only root may look into that folder.

Examples:
  hailo-clip doctor
  sudo hailo-clip doctor --state-dir /var/lib/hailo-clip
  hailo-clip doctor --json | jq '.findings[] | select(.level == "fail")'`
}

func (c *doctorCmd) Run(ctx context.Context, g *globals, p place) error {
	env := p.machine()
	if c.Root != "" {
		c.onlyFiles(p.cfg, &env)
	} else {
		c.thisMachine(ctx, g, p, &env)
	}
	return printReport(doctor.Run(ctx, env), c.JSON)
}

// printReport prints what was found. The error is an exitError where something fails.
func printReport(r doctor.Report, asJSON bool) (err error) {
	if asJSON {
		err = printJSON(r)
	} else {
		err = r.WriteText(styled{stdout}, stdout.color())
	}
	if err == nil && r.Level == doctor.Fail {
		err = exitError(exitFailed)
	}
	return err
}

// machine is this machine, with what the configuration says of its device.
func (p place) machine() doctor.Env {
	env := doctor.Host()
	env.Version, env.Backend = programVersion(), p.cfg.CLIP.Backend
	env.Shared = p.cfg.NPU.Group != "" && p.cfg.NPU.Group != "UNIQUE"
	env.Service = func(ctx context.Context) *doctor.Service { return askService(ctx, p.cfg.Server) }
	var err error
	if env.Worker, err = npu.FindWorker(p.cfg.NPU.Worker); err != nil {
		env.Worker = p.cfg.NPU.Worker // a configured one that is no program is a finding of its own
	}
	return env
}

// onlyFiles makes env that of another system: what this machine's kernel, programs, libraries and
// models are says nothing about it.
func (c *doctorCmd) onlyFiles(cfg configs.Config, env *doctor.Env) {
	env.Root, env.Access, env.KernelLog, env.Command, env.Service, env.Worker = c.Root, nil, nil, nil, nil, ""
	for _, path := range []string{cfg.NPU.Worker, "/usr/bin/" + npu.WorkerName, npu.PackageDir + "/" + npu.WorkerName} {
		if path != "" && env.Worker == "" && device.Root(c.Root).Exists(path) {
			env.Worker = path
		}
	}
}

// thisMachine adds to env what this program knows of the machine that it runs on.
func (c *doctorCmd) thisMachine(ctx context.Context, g *globals, p place, env *doctor.Env) {
	if g.StateDir != "" {
		env.State = p.state
	} else if unitState() == "" && device.Root("/").HasService() {
		p.state, env.State, p.catalog.Dir = device.ServiceState, device.ServiceState, modelsDir(device.ServiceState)
	}
	_, err := os.ReadDir(p.catalog.Dir)
	hidden := errors.Is(err, fs.ErrPermission)
	name := p.cfg.CLIP.Model
	if m, _, err := p.catalog.Resolve(ctx, name); !hidden && (err == nil && !m.Embedded() || name != model.Auto) {
		if name == model.Auto {
			name = model.Preferred // the one that people want
		}
		in, _ := p.installed(ctx, name) // what is wrong with it stops the start
		if in.Manifest.Name != "" && !in.Builtin {
			env.Model = &in
		}
	}
	env.Extra = func(ctx context.Context) []doctor.Finding {
		f := &findings{place: p, env: *env}
		if hidden {
			f.add("state-folder", doctor.Info, "This user may not look into "+p.state+", so models and ONNX Runtime were not checked.",
				"sudo hailo-clip doctor --state-dir "+p.state)
		} else {
			f.libraries()
			f.start(ctx)
		}
		f.port(ctx)
		f.compat(ctx)
		f.fleet(ctx)
		f.configuration()
		return f.all
	}
}
