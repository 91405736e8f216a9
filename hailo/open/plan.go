package open

import (
	"context"
	"fmt"

	"hailoclip/hailo"
	"hailoclip/hailo/device"
	"hailoclip/hailo/model"
	"hailoclip/hailo/npu"
)

// Plan is what is to encode on this machine, before any of it is opened.
type Plan struct {
	Kind string // npu, cpu or sim
	Why  string // why this kind

	device    *npu.Options // nil: the CPU encodes all
	cpuNeeded bool         // without the CPU's encoders nothing can be served
	standIn   bool         // they take over while the device is lost, where they can
}

// choose says what the configured backend stands for on the machine below root, and why. The chip on the bus decides
// and not its node, which comes up to a minute after the machine's start: the worker is tried until it is there.
func choose(cfg Config, m *model.Model, root string) (kind, why string) {
	if cfg.Backend != "auto" {
		return cfg.Backend, "clip.backend is " + cfg.Backend
	}
	chip, ok := device.Read(root).Chip()
	if !ok {
		return "cpu", "there is no Hailo-10H"
	}
	if _, err := npu.FindWorker(cfg.NPU.Worker); err != nil {
		return "cpu", fmt.Sprintf("a Hailo-10H is there (%s), but its worker program is not: %v", chip.Address, err)
	}
	if !m.HasNPU() {
		return "cpu", fmt.Sprintf("a Hailo-10H is there (%s), but model %s has no NPU files installed", chip.Address, m.Name)
	}
	return "npu", fmt.Sprintf("a Hailo-10H (%s), its worker and the model's NPU files are there", chip.Address)
}

// plan says what encodes here. Its errors are those that stop a start before anything is opened.
func (o *Opener) plan(ctx context.Context) (p Plan, err error) {
	p.Kind, p.Why = choose(o.cfg, o.Model, "/")
	switch p.Kind {
	case "npu":
		p.device, err = o.npuOptions(ctx)
	case "sim":
		p.device, err = o.simOptions()
	default:
		if o.cfg.TextEncoder == "npu" {
			return p, ConfigError("clip.text_encoder: npu needs the NPU for images too")
		}
		p.cpuNeeded = true
		return p, nil
	}
	if err != nil {
		return p, err
	}
	// The vectors of the simulated chip are its own, unless it computes the demo model's.
	p.standIn = o.cfg.OnDeviceLoss == "cpu" && (!p.device.Simulated || o.cfg.Sim.Vectors == "model")
	p.cpuNeeded = p.device.Text == nil
	return p, p.device.Validate()
}

// Check says what would stop Open, and comes to the same by the same functions, but leaves the device alone: one that
// is lost stops no start.
func (o *Opener) Check(ctx context.Context) (Plan, error) {
	p, err := o.plan(ctx)
	if err != nil || !p.cpuNeeded {
		return p, err
	}
	cpu, err := o.openCPU(ctx, p)
	if err != nil {
		return p, err
	}
	defer cpu.Close() //nolint:errcheck // nothing is lost with it
	if p.device != nil {
		_, err = cpu.EncodeTexts(ctx, [][]int32{o.known()})
		return p, err
	}
	probe, err := hailo.NewProbe(ctx, cpu, cpu, o.known(), 0, 1, o.log)
	if err == nil {
		err = probe.Close()
	}
	return p, err
}
