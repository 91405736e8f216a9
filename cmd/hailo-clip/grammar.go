package main

import (
	"io/fs"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"hailoclip/configs/models"
)

// entry is a command as completions and the manual show it.
type entry struct {
	Path     string // "models pull"; "" is the program itself
	Help     string // one line
	Detail   string // what --help says below it, with the examples
	Usage    string // arguments, such as "<name> [<checkpoint>]"
	Flags    []option
	Commands []entry // directly below it
	Operand  values  // of its positional arguments
}

// option is a flag. Value is "" for one that takes none.
type option struct {
	Long, Help string
	Short      string // "" is none
	Value      string // placeholder
	values
}

// values are what a flag or a positional argument takes: one of Words, a file, a folder, or any text.
type values struct {
	Words        []string
	File, Folder bool
}

// grammar reads the model of the command line, without what is hidden.
func grammar(root *kong.Node) entry {
	e := entry{Path: root.Path(), Help: root.Help, Detail: root.Detail}
	if root.Type == kong.ApplicationNode {
		e.Path = ""
	}
	nodes := []*kong.Node{root}
	if root.DefaultCmd != nil { // its flags may follow root
		nodes = append(nodes, root.DefaultCmd)
	}
	for _, node := range nodes {
		for _, f := range node.Flags {
			if !f.Hidden {
				e.Flags = append(e.Flags, optionOf(f))
			}
		}
		var usage []string
		for _, p := range node.Positional {
			usage = append(usage, p.Summary())
			e.Operand = valuesOf(p, "")
		}
		e.Usage = strings.Join(usage, " ")
	}
	for _, child := range root.Children {
		if !child.Hidden {
			e.Commands = append(e.Commands, grammar(child))
		}
	}
	return e
}

func optionOf(f *kong.Flag) option {
	o := option{Long: f.Name, Help: f.Help}
	if f.Short != 0 {
		o.Short = string(f.Short)
	}
	if !f.IsBool() && !f.IsCounter() {
		o.Value, o.values = f.FormatPlaceHolder(), valuesOf(f.Value, f.PlaceHolder)
	}
	return o
}

func valuesOf(v *kong.Value, placeholder string) (vs values) {
	switch {
	case v.Enum != "":
		vs.Words = slices.DeleteFunc(v.EnumSlice(), func(word string) bool { return word == "" })
	case v.Name == "model" || v.Flag == nil && v.Name == "name" && strings.Contains(v.Help, "models list"):
		vs.Words = knownModels()
		if v.Flag != nil {
			vs.Words = append([]string{"auto"}, vs.Words...)
		}
	case v.Name == "backend":
		vs.Words = []string{"auto", "npu", "cpu", "sim"}
	case v.Tag.Type == "existingdir" || placeholder == "DIR":
		vs.Folder = true
	case v.Tag.Type != "" || placeholder == "FILE" || v.Flag == nil && v.Name != "text":
		vs.File = true
	}
	return vs
}

// knownModels are the names of the demo model and of those that the program has a manifest of.
func knownModels() []string {
	files, _ := fs.Glob(models.FS, "*.json") // the pattern is good
	names := []string{"demo"}
	for _, file := range files {
		names = append(names, strings.TrimSuffix(file, ".json"))
	}
	return names
}

// all is the entry and all those below it, a command before its subcommands.
func (e entry) all() []entry {
	list := []entry{e}
	for _, c := range e.Commands {
		list = append(list, c.all()...)
	}
	return list
}

// Name is the last word of the path.
func (e entry) Name() string { return e.Path[strings.LastIndexByte(e.Path, ' ')+1:] }
