package main

import (
	"embed"
	"io"
	"strings"
	"text/template"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

func (c *completionCmd) Help() string {
	return `The Debian package installs it for all three. Without the package:

Examples:
  hailo-clip completion bash > ~/.local/share/bash-completion/completions/hailo-clip
  hailo-clip completion zsh > ~/.zfunc/_hailo-clip     # with ~/.zfunc in fpath, before compinit
  hailo-clip completion fish > ~/.config/fish/completions/hailo-clip.fish`
}

func (c *completionCmd) Run(k *kong.Context) error {
	return writeCompletion(stdout, c.Shell, grammar(k.Model.Node))
}

//go:embed completion/hailo-clip.*
var completionFiles embed.FS

// completions are the scripts, one for each shell. They do not run hailo-clip.
var completions = template.Must(template.New("").Funcs(template.FuncMap{
	"quote": quoteShell, "fish": quoteFish, "brief": brief, "join": strings.Join,
	"zsh": func(name, help string) string {
		return quoteShell(strings.ReplaceAll(name, ":", `\:`) + ":" + brief(help))
	},
}).ParseFS(completionFiles, "completion/hailo-clip.*"))

func writeCompletion(w io.Writer, shell string, program entry) error {
	return completions.ExecuteTemplate(w, "hailo-clip."+shell, program.all())
}

// quoteShell makes a word of text for bash and zsh.
func quoteShell(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// quoteFish makes a word of text for fish.
func quoteFish(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}

// brief is the first sentence of a help text.
func brief(help string) string {
	first, _, _ := strings.Cut(help, ". ")
	first, _, _ = strings.Cut(first, "\n")
	return strings.TrimSuffix(first, ".")
}

// Kind is the kind of value, for the scripts: "words a b", "files", "folders" or "any".
func (v values) Kind() string {
	switch {
	case len(v.Words) > 0:
		return "words " + strings.Join(v.Words, " ")
	case v.File:
		return "files"
	case v.Folder:
		return "folders"
	}
	return "any"
}

// Names are the spellings of the flag as a pattern of the shell, each after before: "--prompt|-p".
func (o option) Names(before string) string {
	names := before + "--" + o.Long
	if o.Short != "" {
		names += "|" + before + "-" + o.Short
	}
	return names
}

// Spellings are how the flag can be written, the short one first.
func (o option) Spellings() []string {
	if o.Short != "" {
		return []string{"-" + o.Short, "--" + o.Long}
	}
	return []string{"--" + o.Long}
}
