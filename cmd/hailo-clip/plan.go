package main

import (
	"context"
	"errors"

	"hailoclip/hailo"
	"hailoclip/hailo/npu"
)

// plan is what is to encode on this machine, before any of it is opened.
type plan struct {
	kind, why string
	device    *npu.Options // nil: the CPU encodes all
	cpu       bool         // the CPU's encoders are opened
	cpuNeeded bool         // and without them nothing can be served
	cpuThere  bool         // their files are installed
	standIn   bool         // they take over while the device is lost
}

// plan says what encodes here. Its errors are those that stop a start before anything is opened.
func (o opener) plan() (p plan, err error) {
	p.kind, p.why = chooseBackend(o.cfg, o.model, "/")
	switch p.kind {
	case "npu":
		p.device, err = o.npuOptions()
	case "sim":
		p.device, err = o.simOptions()
	default:
		if o.cfg.CLIP.TextEncoder == "npu" {
			return p, usageError{errors.New("clip.text_encoder: npu needs the NPU for images too")}
		}
		p.cpu, p.cpuNeeded, p.cpuThere = true, true, o.model.HasCPU()
		return p, nil
	}
	if err != nil {
		return p, err
	}
	encodesTexts := p.device.TextDigest != ""
	// The vectors of the simulated chip are its own, unless it computes the demo model's.
	standIn := o.cfg.CLIP.OnDeviceLoss == "cpu" && (!p.device.Simulated || o.cfg.Sim.Vectors == "model")
	p.cpu, p.cpuNeeded = standIn || !encodesTexts, !encodesTexts
	p.standIn = standIn && o.model.HasCPU()
	p.cpuThere = p.standIn || o.model.HasCPUText()
	return p, p.device.Validate()
}

// check says what would stop open, and comes to the same by the same functions, but leaves the device alone: one that
// is lost stops no start.
func (o opener) check(ctx context.Context) (plan, error) {
	p, err := o.plan()
	if err != nil || !p.cpuNeeded {
		return p, err
	}
	cpu, err := o.openCPU(p)
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
