package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"

	"hailoclip/configs"
	"hailoclip/hailo/device"
)

type manCmd struct{}

func (c *manCmd) Help() string {
	return `Examples:
  hailo-clip man | man -l -
  hailo-clip man | gzip -9n | sudo tee /usr/local/share/man/man1/hailo-clip.1.gz > /dev/null`
}

func (c *manCmd) Run(k *kong.Context) error {
	m := manual{w: stdout}
	m.page(grammar(k.Model.Node), programVersion())
	return nil // stdout remembers an error
}

// manual writes a page for man(1) in the macros man(7).
type manual struct{ w io.Writer }

func (m manual) page(program entry, version string) {
	m.line(`.TH HAILO-CLIP 1 "" %s "User Commands"`, argument("hailo-clip "+version))
	m.section("NAME", `hailo-clip \- `+roff("zero-shot image classification and embeddings with CLIP"))
	m.section("SYNOPSIS", `.B hailo-clip`, `.I COMMAND`, roff("[FLAGS] [ARGUMENTS]"))
	m.line(".SH DESCRIPTION")
	m.prose(program.Help)
	m.line(".SH FLAGS OF EVERY COMMAND")
	m.flags(program.Flags)
	m.line(".SH COMMANDS")
	for _, e := range program.all()[1:] {
		m.line(".SS %s", argument("hailo-clip "+strings.TrimSpace(e.Path+" "+e.Usage)))
		m.prose(e.Help + "\n\n" + e.Detail)
		m.flags(e.Flags)
	}
	m.line(".SH FILES")
	m.tagged(configs.SystemFile, `The configuration. "hailo-clip config show --default" prints every setting with its default.`)
	m.tagged(device.ServiceState, "Models, ONNX Runtime, prompt sets, streams, events and the prompt cache of the service.")
	m.line(".SH ENVIRONMENT")
	m.tagged("HAILO_CLIP_...", "Every setting, such as HAILO_CLIP_SERVER_PORT for server.port. Variables override the file; flags override both.")
	m.tagged(configs.StateVariable, "The state folder, as --state-dir.")
	m.tagged(configs.KeyVariable, "The key for the service that a command asks, unless --key-file is given.")
	m.section("SEE ALSO", roff("systemctl(1), journalctl(1)"))
}

func (m manual) line(format string, args ...any) { fmt.Fprintf(m.w, format+"\n", args...) }

func (m manual) section(name string, lines ...string) {
	m.line(".SH %s", name)
	for _, line := range lines {
		m.line("%s", line)
	}
}

// prose writes paragraphs; indented lines keep their breaks.
func (m manual) prose(text string) {
	verbatim := false
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		indented := strings.HasPrefix(line, "  ")
		switch {
		case indented && !verbatim:
			m.line(".PP\n.EX")
		case !indented && verbatim:
			m.line(".EE")
		}
		verbatim = indented
		if strings.TrimSpace(line) != "" {
			m.line("%s", roff(line))
		} else {
			m.line(".PP")
		}
	}
	if verbatim {
		m.line(".EE")
	}
}

func (m manual) flags(flags []option) {
	for _, f := range flags {
		m.line(".TP")
		names := `\fB` + roff(strings.Join(f.Spellings(), `, `)) + `\fR`
		if f.Value != "" {
			names += `=\fI` + roff(f.Value) + `\fR`
		}
		m.line("%s\n%s", names, roff(f.Help))
	}
}

func (m manual) tagged(name, text string) { m.line(".TP\n.B %s\n%s", roff(name), roff(text)) }

// roff escapes a line of text. One that begins with white space keeps it.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "^", `\(ha`, "~", `\(ti`, "`", `\(ga`, "'", `\(aq`).Replace(text)
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}

// argument quotes one argument of a macro.
func argument(text string) string { return `"` + strings.ReplaceAll(roff(text), `"`, `\(dq`) + `"` }
