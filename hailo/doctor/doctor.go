// Package doctor finds out why the NPU cannot be used on this machine and says what to do about
// it: hailo-clip doctor.
//
// It judges the facts of package device, all of files below one root folder, so every check runs on
// a fake root in the tests. It never opens the device node, loads no library and starts a program only
// where no file tells the same. What only the open device can tell comes from the running service
// (temperature, rate), or, while nobody holds the device, from the vendor's tool (chip software).
//
// The checks run in the order in which things come to life: chip on the bus, packages, driver for this kernel, driver
// running, firmware booted, device node, library, worker, models. What cannot be judged because something before it
// is broken is named as skipped, not reported as one more fault. See [Run].
//
// # Exit codes
//
//	0  nothing is broken. Warnings and missing optional parts count as 0 as long as the service
//	   can serve: a machine without a Hailo device is healthy, it runs on the CPU
//	1  the report's level is Fail: something that is there, or that the configuration asks for, does not work
package doctor

import (
	"context"
	"os"
	"slices"
	"strings"

	"hailoclip/hailo/device"
	"hailoclip/hailo/model"
)

// Level says how bad a Finding is.
type Level string

// The levels. Only Fail changes the exit code.
const (
	OK   Level = "ok"
	Info Level = "info" // a fact, or a check that was not possible
	Warn Level = "warn" // works, or works without the NPU, but not as well as it should
	Fail Level = "fail" // broken
)

// Finding is the result of one check.
type Finding struct {
	Check  string `json:"check"`            // stable name: "pci-device"
	Level  Level  `json:"level"`            //
	What   string `json:"what"`             // a sentence for a person, with the evidence
	Remedy string `json:"remedy,omitempty"` // lines for a shell, prose as # comments; "" when there is nothing to do
}

// Env is the machine to examine. [Host] returns the real one. Functions that are nil count as
// "cannot be asked here" and their checks say so.
type Env struct {
	Root    string // folder that stands for /; "" is /
	Version string // of hailo-clip, for the report
	Backend string // what the configuration asks for: "auto" ("" too), "npu", "cpu" or "sim"
	Worker  string // path of hailo-clip-npu, looked up below Root; "" if there is none
	State   string // state folder of the models, for remedies; "": the one that every command takes by itself

	Shared bool  // the configuration gives a HailoRT group id, so others may use the chip too
	UID    int   // effective user of this process
	GIDs   []int // its groups

	Model *model.Installed // the chosen model; nil: its files do not matter

	// Access says whether this process may read and write the file at path (a real path, Root
	// included) without opening it: nil, or an errno such as EACCES or EPERM.
	Access func(path string) error
	// KernelLog returns the kernel's messages, one a line. At most its last MiB is looked at.
	KernelLog func(ctx context.Context) ([]byte, error)
	// Command runs a program and returns its standard output. It must come back soon.
	Command func(ctx context.Context, name string, args ...string) ([]byte, error)
	// Service asks the running service about the chip; nil if none answers or it does not use the
	// chip. It must come back soon.
	Service func(ctx context.Context) *Service
	// Extra returns what other packages found: libraries, the choice of the backend.
	Extra func(ctx context.Context) []Finding
}

// Host returns the Env of the machine that this process runs on, without Version, Backend,
// Worker, Service, Model and Extra, which the caller knows.
func Host() Env {
	gids, _ := os.Getgroups()
	return Env{
		Root: "/", UID: os.Geteuid(), GIDs: append(gids, os.Getegid()),
		Access: device.Access, KernelLog: device.KernelLog, Command: device.Command,
	}
}

// Versions are those that have to fit together; "" is unknown or absent.
type Versions struct {
	Program string `json:"hailo_clip,omitempty"`
	Kernel  string `json:"kernel,omitempty"`
	Driver  string `json:"driver,omitempty"`  // the loaded module hailo1x_pci
	Library string `json:"library,omitempty"` // libhailort on disk
	Chip    string `json:"chip,omitempty"`    // software that the chip runs
	Worker  string `json:"worker,omitempty"`  // the libhailort that the worker was built for
}

// Report is all that was found. Immutable once Run returned it.
type Report struct {
	Level    Level          `json:"level"`            // the worst of the findings
	Summary  string         `json:"summary"`          // one sentence
	Device   *device.Device `json:"device,omitempty"` // nil: no Hailo-10H that a process could open
	Versions Versions       `json:"versions"`
	Findings []Finding      `json:"findings"` // in the order of the checks
}

// stage is how far the device came to life. A check that needs a later stage is skipped.
type stage int

const (
	nothing stage = iota
	chip          // a Hailo-10H is on the bus
	stack         // HailoRT 5.x is installed
	built         // there is a driver for the running kernel
	driver        // the driver is loaded and has taken the chip
	booted        // the chip runs its firmware
	hasNode       // there is a device node
)

// whyNot says why the checks that need a stage were skipped.
var whyNot = [...]string{chip: "there is no Hailo-10H", stack: "HailoRT 5 is not installed", built: "there is no driver for this kernel",
	driver: "the driver is not running", booted: "the chip has not booted", hasNode: "there is no device node"}

// checks, in the order of the report.
var checks = []struct {
	name  string
	needs stage
	run   func(*exam)
}{
	{"machine", nothing, checkMachine},
	{"pci-device", nothing, checkPCI},
	{"stack", chip, checkStack},
	{"kernel-module", stack, checkModule},
	{"driver", built, checkDriver},
	{"firmware", stack, checkFirmware},
	{"kernel-log", driver, checkLog},
	{"device-node", booted, checkNode},
	{"library", stack, checkLibrary},
	{"versions", driver, checkVersions},
	{"permissions", hasNode, checkPermissions},
	{"in-use", hasNode, checkInUse},
	{"chip-software", hasNode, checkSoftware},
	{"chip-rate", hasNode, checkRate},
	{"pcie-link", chip, checkLink},
	{"power", chip, checkPower},
	{"temperature", chip, checkTemperature},
	{"chip-temperature", hasNode, checkChipTemperature},
	{"memory", chip, checkMemory},
	{"headers", stack, checkHeaders},
	{"worker", stack, checkWorker},
	{"npu-models", chip, func(e *exam) { e.checkModels(model.NPUPart) }},
	{"cpu-models", nothing, func(e *exam) { e.checkModels(model.CPUPart) }},
}

// exam is one run: the machine, what is known of it, and the report so far.
type exam struct {
	*device.Machine
	ctx      context.Context
	env      Env
	p        device.PCI        // the Hailo-10H
	board    device.Board      // what the driver made of it
	running  bool              // it did: the chip has booted
	packages map[string]string // installed Hailo packages: name -> version
	log      []string          // the kernel's
	logErr   error
	service  *Service // nil: none that encodes on the chip answers
	absent   Level    // of parts that were never installed: an error only if the configuration asks for the NPU by name

	check       string // the running one
	reached     stage
	firmwareBad bool
	permitted   bool   // this process may open the device
	held        string // who holds the device, or may: "hailo-ollama (process 7) holds it"; "" is nobody
	Report
}

// Run examines the machine. It takes some tenths of a second plus the time of env.Extra, holds nothing afterwards and is
// safe for concurrent use. When ctx ends before the last check, the report holds what was found so far and a Fail finding
// "interrupted".
func Run(ctx context.Context, env Env) Report {
	e := examine(ctx, env)
	var skipped []string
	var missing stage
	for _, c := range checks {
		switch e.check = c.name; {
		case ctx.Err() != nil:
		case c.needs <= e.reached:
			c.run(e)
		default:
			skipped = append(skipped, c.name)
			if missing == nothing {
				missing = e.reached + 1
			}
		}
	}
	e.check = "skipped"
	switch {
	case missing == chip:
		e.add(Info, "All else about the device was skipped, because "+whyNot[chip]+".")
	case len(skipped) > 0:
		e.add(Info, "Not checked, because "+whyNot[missing]+": "+strings.Join(skipped, ", ")+".")
	}
	if env.Extra != nil && ctx.Err() == nil {
		e.Findings = append(e.Findings, env.Extra(ctx)...)
	}
	e.check = "interrupted"
	if ctx.Err() != nil {
		e.add(Fail, "The checks were interrupted: "+context.Cause(ctx).Error()+".")
	}
	e.summarize()
	return e.Report
}

// examine gathers what several checks look at.
func examine(ctx context.Context, env Env) *exam {
	e := &exam{Machine: device.Read(env.Root), ctx: ctx, env: env, absent: Warn}
	if env.Backend == "npu" {
		e.absent = Fail
	}
	e.Versions = Versions{Program: env.Version, Kernel: e.Kernel, Driver: e.Driver, Library: e.Library()}
	if d, ok := e.Machine.Device(); ok {
		e.Report.Device = &d
	}
	e.packages = e.Packages()
	if len(e.PCI) > 0 || e.Pi {
		e.log, e.logErr = readLog(ctx, env.KernelLog)
	}
	e.p, _ = e.Chip()
	e.board, e.running = e.Board()
	if e.p.Address != "" && env.Service != nil {
		e.service = env.Service(ctx)
	}
	return e
}

// add appends the running check's finding. Of the lines of its remedy, those that are empty are left out.
func (e *exam) add(level Level, what string, remedy ...string) {
	// The service serves in spite of a device that the configuration does not use.
	idle := (e.env.Backend == "cpu" || e.env.Backend == "sim") && e.check != "interrupted" && e.check != "cpu-models"
	if level == Fail && idle {
		level = Warn
	}
	remedy = slices.DeleteFunc(remedy, func(s string) bool { return s == "" })
	e.Findings = append(e.Findings, Finding{Check: e.check, Level: level, What: what, Remedy: strings.Join(remedy, "\n")})
}

// summarize fills Level and Summary.
func (e *exam) summarize() {
	count := map[Level]int{}
	for _, f := range e.Findings {
		count[f.Level]++
	}
	for _, level := range []Level{OK, Info, Warn, Fail} {
		if count[level] > 0 {
			e.Level = level
		}
	}
	warnings := ""
	if count[Warn] > 0 {
		warnings = ", " + plural(count[Warn], "warning")
	}
	switch {
	case e.Level == Fail:
		e.Summary = plural(count[Fail], "problem") + warnings + ". Begin with the first, then run hailo-clip doctor again."
	case e.Level == Warn:
		e.Summary = "Nothing is broken" + warnings + "."
	case e.reached >= hasNode:
		e.Summary = "All is well: the Hailo-10H can be used."
	case e.reached < chip:
		e.Summary = "All is well: no Hailo device, the service does not need one."
	default:
		e.Summary = "Nothing is broken."
	}
}
