// Command hailo-clip is a REST service for zero-shot image classification and embeddings with
// CLIP, and the tools around it. This package is wiring: subcommands, signals, exit codes.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"hailoclip/configs"
	"hailoclip/hailo/device"
	"hailoclip/hailo/model"
	"hailoclip/hailo/onnx"
	"hailoclip/hailo/open"
)

// version is set by the Makefile.
var version = ""

// Exit codes, for scripts; README has them.
const (
	exitOK          = 0
	exitFailed      = 1   // the work failed
	exitUsage       = 2   // wrong arguments or configuration
	exitMissing     = 3   // something is not installed: the message names the command that installs it
	exitInterrupted = 130 // Ctrl-C before the end
	exitPipe        = 141 // who read standard output has left, as in "| head -1": what a shell gives other programs then
)

// cli is the grammar of the command line.
type cli struct {
	globals
	ShowVersion versionFlag `name:"version" help:"Print the version."`

	Serve    serveCmd      `cmd:"" help:"Run the REST service until SIGTERM or Ctrl-C."`
	Demo     demoCmd       `cmd:"" help:"Run the service with the embedded demo model and classify its sample images."`
	Classify classifyCmd   `cmd:"" help:"Classify images against prompts or a prompt set."`
	Watch    watchCmd      `cmd:"" help:"Classify the frames of a camera, a video or a folder, and say what changes."`
	Index    indexCmd      `cmd:"" help:"Make embeddings or classifications of any number of images, and go on where it was after a stop."`
	Embed    embedCmd      `cmd:"" help:"Print the embedding of an image or a text."`
	Inspect  inspectCmd    `cmd:"" help:"Look at what the model sees: pixels, tokens, the model itself."`
	Sets     promptSetsCmd `cmd:"" name:"prompt-sets" help:"List, make, change, export and import prompt sets."`
	Evaluate evaluateCmd   `cmd:"" help:"Try a prompt set on labelled images: confusions, thresholds, calibration."`
	Models   modelsCmd     `cmd:"" help:"List, fetch, check and remove models."`
	Setup    setupCmd      `cmd:"" help:"Fetch ONNX Runtime, which encodes on the CPU."`
	Fleet    fleetCmd      `cmd:"" help:"Look at the fleet that the service belongs to."`
	Cache    cacheCmd      `cmd:"" help:"Look at the prompt cache, or empty it."`
	Keys     keysCmd       `cmd:"" help:"Make keys for callers of the service (access.keys)."`
	Config   configCmd     `cmd:"" help:"Show the configuration in force, or check a file."`
	Doctor   doctorCmd     `cmd:"" help:"Check device, driver, libraries and models, and say what to do about each finding."`
	Bench    benchCmd      `cmd:"" help:"Put a service under load, or profile one image path."`
	NPUSim   npuSimCmd     `cmd:"" name:"npu-sim" passthrough:"" help:"The simulated chip, a worker process that the backend sim starts."`
	Service  serviceCmd    `cmd:"" help:"Install the program as a service of systemd, remove it, or say how it is."`
	Verify   verifyCmd     `cmd:"" help:"Try the running service: unit, device, port, health, readiness, images whose answer is known."`
	Complete completionCmd `cmd:"" name:"completion" help:"Print the completion script of a shell."`
	Man      manCmd        `cmd:"" hidden:"" help:"Print the manual page."`
	Version  versionCmd    `cmd:"" help:"Print the version."`
}

const description = `Zero-shot image classification and embeddings with CLIP, on the Hailo-10H NPU or the CPU.

Examples:
  hailo-clip serve --port 5000
  hailo-clip classify cat.jpg dog.jpg -p "a photo of a cat" -p "a photo of a dog"
  hailo-clip models pull clip-vit-b-32

"hailo-clip COMMAND --help" has the flags and more examples of a command.
Exit codes: 0 done, 1 failed, 2 wrong arguments or configuration, 3 something is not installed, 130 interrupted,
141 the reader of the output has left.`

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := untilSignal()
	defer stop()
	surviveLostReaders()
	defer stderr.flush(flushTimeout)

	var c cli
	parser, err := kong.New(&c, append(rawArguments(),
		kong.Name("hailo-clip"), kong.Description(description),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Vars{"config_file": configs.SystemFile, "state_variable": configs.StateVariable, "service_state": device.ServiceState},
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(&c.globals), kong.BindToProvider(c.globals.catalog),
		kong.BindToProvider(c.globals.cacheFile), kong.BindToProvider(func() (place, error) { return c.place() }),
		kong.Help(printHelp), kong.Exit(func(int) { // after --help and --version
			code := exitCode(ctx, nil)
			stderr.flush(flushTimeout)
			os.Exit(code)
		}),
	)...)
	if err != nil {
		panic(err) // the grammar above is wrong
	}
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "help" {
		args = append(slices.Clone(args[1:]), "--help")
	}
	k, err := parser.Parse(args)
	if err != nil {
		command := ""
		var bad *kong.ParseError
		if errors.As(err, &bad) && bad.Context != nil {
			command, _, _ = strings.Cut(bad.Context.Command(), "<") // what follows are arguments
			command = strings.TrimSpace(command)
		}
		if command == "bench" || command == "index" {
			command += " run" // which it stands for, and whose flags these were
		}
		complain("hailo-clip: %s", strings.Replace(err.Error(), `must be one of "",`, "must be one of ", 1)) // "": not given
		complain("Run %q for usage.", strings.Join(append(strings.Fields("hailo-clip "+command), "--help"), " "))
		return exitUsage
	}
	return exitCode(ctx, k.Run())
}

// untilSignal returns a context that ends with the first SIGTERM, SIGHUP or Ctrl-C. A second Ctrl-C
// ends the process at once; the other two come from programs, which may repeat them, and change
// nothing any more. A SIGHUP that nohup ignores stays ignored.
func untilSignal() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	wanted := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		wanted = append(wanted, syscall.SIGHUP)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, wanted...)
	go func() {
		for s := range signals {
			if s == os.Interrupt {
				signal.Reset(os.Interrupt)
			}
			cancel()
		}
	}()
	return ctx, cancel
}

// usageError is a mistake in the arguments or in the configuration.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// exitError ends the program with a code and without a message; whoever returns it has said all.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// exitCode prints err and says what the process ends with.
func exitCode(ctx context.Context, err error) int {
	lost, left := stdout.lost, errors.Is(stdout.lost, syscall.EPIPE)
	switch told := err != nil && errors.Is(err, lost); {
	case left && (err == nil || told):
		return exitPipe
	case lost != nil && err == nil:
		err = lost
	case lost != nil && !left && !told:
		complain("hailo-clip: %v", lost)
	}
	var code exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return int(code)
	case interrupted(ctx, err):
		complain("hailo-clip: interrupted")
		return exitInterrupted
	}
	complain("hailo-clip: %v", err)
	var usage usageError
	var unfit open.ConfigError
	switch {
	case errors.As(err, &usage), errors.As(err, &unfit), errors.Is(err, model.ErrUnknown):
		return exitUsage
	case errors.Is(err, onnx.ErrNoLibrary), errors.Is(err, model.ErrNotInstalled):
		return exitMissing
	}
	return exitFailed
}

// interrupted says that err is nothing but a signal's doing.
func interrupted(ctx context.Context, err error) bool {
	return ctx.Err() != nil && errors.Is(err, context.Canceled)
}

// printHelp prints to the real standard output, whose width as a terminal kong asks for.
func printHelp(o kong.HelpOptions, k *kong.Context) error {
	stdout.lost = kong.DefaultHelpPrinter(o, k)
	return nil
}

// versionFlag is the command version for those who expect a flag.
type versionFlag bool

func (versionFlag) BeforeReset(k *kong.Kong) error {
	err := versionCmd{}.Run()
	k.Exit(exitOK)
	return err
}

type versionCmd struct{}

func (c *versionCmd) Help() string {
	return `Example:
  hailo-clip version`
}

func (versionCmd) Run() error {
	fmt.Fprintln(stdout, "hailo-clip", programVersion())
	return nil
}

// programVersion is the Makefile's, or what "go install" knows.
func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
