package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"hailoclip/hailo/device"
	"hailoclip/hailo/fetch"
	"hailoclip/hailo/model"
)

type modelsCmd struct {
	List   modelsListCmd   `cmd:"" help:"List the models and what is installed of them."`
	Pull   modelsPullCmd   `cmd:"" help:"Fetch the files of a model, or copy them from a folder."`
	Verify modelsVerifyCmd `cmd:"" help:"Read all files of a model and check their digests."`
	Rm     modelsRmCmd     `cmd:"" help:"Remove the files of a model."`

	BuildText modelsBuildTextCmd `cmd:"" help:"Make what encoding texts on the NPU needs from a checkpoint of the model."`
}

type modelsListCmd struct {
	JSON bool `help:"Print JSON."`
}

func (c *modelsListCmd) Help() string {
	return `What to choose by: images and texts a second on a Hailo-10H in runs of eight, and how often the first of 100 labels
is right there (CIFAR-100, without training), as its vendor published them. Vectors of one model are of no use to another.`
}

func (c *modelsListCmd) Run(ctx context.Context, catalog *model.Catalog) error {
	list, err := catalog.List(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		listed := make([]listedModel, len(list))
		for i, in := range list {
			listed[i] = newListedModel(in)
		}
		return printJSON(listed)
	}
	names := []string{"model"}
	for _, in := range list {
		names = append(names, in.Manifest.Name)
	}
	// With the longest name of a known model a row has 80 columns.
	row := fmt.Sprintf("%%-%ds  %%-8s  %%-8s  %%5s  %%5s  %%5s  %%5s  %%6s\n", longest(names...))
	fmt.Fprintf(stdout, row, "model", "CPU", "NPU", "img/s", "txt/s", "top-1", "MB", "to get")
	for _, in := range list {
		l := newListedModel(in)
		fmt.Fprintf(stdout, row, l.Name, cmp.Or(l.CPU, "-"), cmp.Or(l.NPU, "-"),
			figure(l.Rates.image(), 0), figure(l.Rates.text(), 0), figure(l.chip(), 1), megabytes(l.DiskBytes, false), megabytes(l.PullBytes, l.PullMore))
		fmt.Fprint(stdout, wrapped(printable(in.Manifest.Description), "  "))
		if in.Manifest.NPU != nil && in.NPU != model.Missing && unmade(in) {
			fmt.Fprint(stdout, wrapped("texts are not encoded on the NPU: "+in.Manifest.HowToMake(), "  "))
		}
		unpinned := map[string][]string{} // by date
		for _, f := range in.Files {
			if f.Err != nil {
				fmt.Fprintln(stdout, "  "+fileLine(f))
			} else if !f.Recorded.IsZero() {
				day := f.Recorded.Format(time.DateOnly)
				unpinned[day] = append(unpinned[day], f.Name)
			}
		}
		for _, day := range slices.Sorted(maps.Keys(unpinned)) {
			fmt.Fprint(stdout, wrapped("unpinned, recorded on "+day+": "+strings.Join(unpinned[day], ", "), "  "))
		}
	}
	fmt.Fprint(stdout, "\n", wrapped("img/s, txt/s: on a Hailo-10H in runs of eight. top-1: % of CIFAR-100 on it, without training. "+
		"to get: MB of a whole pull, estimated where its publisher names no size; +: and more. --json says more.", ""))
	fmt.Fprintf(stdout, "models folder: %s\n", catalog.Dir)
	return nil
}

// unmade says whether files are missing that models build-text makes.
func unmade(in model.Installed) bool {
	return slices.ContainsFunc(in.Files, func(f model.FileState) bool { return f.Bytes == 0 && in.Manifest.Made(f.Name) })
}

// figure is a number for a column, "-" where it is not known.
func figure(v float64, digits int) string {
	if v == 0 {
		return "-"
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

// megabytes are bytes for a column; more: and others that are not known.
func megabytes(bytes int64, more bool) string {
	switch {
	case bytes == 0 && more:
		return "?"
	case bytes == 0:
		return "-"
	case more:
		return strconv.FormatInt((bytes+500_000)/1_000_000, 10) + "+"
	}
	return strconv.FormatInt((bytes+999_999)/1_000_000, 10)
}

// listedModel is the JSON of a model in the list. It has no cpu or npu for which it is not made.
type listedModel struct {
	Name        string              `json:"name"`
	Description string              `json:"description"`
	Builtin     bool                `json:"builtin"`
	CPU         model.State         `json:"cpu,omitempty"`
	NPU         model.State         `json:"npu,omitempty"`
	License     string              `json:"license,omitempty"`
	Aliases     []string            `json:"aliases,omitempty"`
	Dimension   int                 `json:"embedding_dimension,omitempty"`
	ImageSize   int                 `json:"image_size,omitempty"`
	Activation  model.Activation    `json:"activation,omitempty"`
	Tokenizer   model.TokenizerKind `json:"tokenizer_kind,omitempty"`
	Parameters  model.Parameters    `json:"parameters,omitzero"`
	Rates       listedRates         `json:"rates,omitzero"`
	Benchmarks  []model.Benchmark   `json:"benchmarks,omitempty"`
	DiskBytes   int64               `json:"disk_bytes"`                // of the files that are there
	PullBytes   int64               `json:"pull_bytes"`                // of those that a pull would bring, as far as they are known
	PullMore    bool                `json:"pull_bytes_more,omitempty"` // the size of others is not known
	Files       []listedFile        `json:"files"`
}

// listedRates are none where they are not published.
type listedRates struct{ *model.Rates }

func (r listedRates) image() float64 {
	if r.Rates == nil || r.Image == nil {
		return 0
	}
	return r.Image.Batch8
}

func (r listedRates) text() float64 {
	if r.Rates == nil || r.Text == nil {
		return 0
	}
	return r.Text.Batch8
}

// chip is the first measurement, as a list shows it: that on the chip; 0 where there is none.
func (l listedModel) chip() float64 {
	if len(l.Benchmarks) == 0 {
		return 0
	}
	return l.Benchmarks[0].Chip
}

func newListedModel(in model.Installed) listedModel {
	m := in.Manifest
	l := listedModel{
		Name: m.Name, Description: m.Description, Builtin: in.Builtin, CPU: in.CPU, NPU: in.NPU, License: m.License, Aliases: m.Aliases,
		Dimension: m.EmbeddingDimension, ImageSize: m.ImageSize, Activation: m.Activation, Tokenizer: m.TokenizerKind,
		Parameters: m.Parameters, Rates: listedRates{m.Rates}, Benchmarks: m.Benchmarks, Files: listFiles(in.Files),
	}
	for _, f := range in.Files {
		size := m.Files[f.Name].Size()
		switch {
		case f.Bytes != 0:
			l.DiskBytes += f.Bytes
		case in.Builtin, m.Made(f.Name), f.Err != nil: // nothing to pull
		case size == 0:
			l.PullMore = true
		default:
			l.PullBytes += size
		}
	}
	return l
}

type listedFile struct {
	Name     string    `json:"name"`
	Path     string    `json:"path,omitempty"`
	Bytes    int64     `json:"bytes"`
	SHA256   string    `json:"sha256,omitempty"`
	Error    string    `json:"error,omitempty"`
	Recorded time.Time `json:"unpinned_recorded,omitzero"`
}

func listFiles(files []model.FileState) []listedFile {
	list := make([]listedFile, len(files))
	for i, f := range files {
		list[i] = listedFile{Name: f.Name, Path: f.Path, Bytes: f.Bytes, SHA256: f.SHA256, Recorded: f.Recorded}
		if f.Err != nil {
			list[i].Error = f.Err.Error()
		}
	}
	return list
}

// fileLine is a file for people.
func fileLine(f model.FileState) string {
	state := cmp.Or(f.SHA256, "digest not known")
	switch {
	case f.Err != nil:
		state = strings.ReplaceAll(f.Err.Error(), "\n", "; ")
	case f.Bytes == 0:
		state = "missing"
	}
	if f.Err == nil && !f.Recorded.IsZero() {
		state += " (unpinned, recorded on " + f.Recorded.Format(time.DateOnly) + ")"
	}
	if f.Vendor {
		state += " (" + f.Path + ")"
	}
	return fmt.Sprintf("%-36s  %12d bytes  %s", f.Name, f.Bytes, state)
}

type modelsPullCmd struct {
	Name     string `arg:"" help:"Name of the model, see models list."`
	FromDir  string `type:"existingdir" placeholder:"DIR" help:"Copy the files from this folder instead of the network."`
	Part     string `enum:"auto,all,cpu,npu" default:"auto" help:"Which files: cpu, npu, all, or auto: those for the CPU, and with a Hailo-10H in this machine all."`
	Revision string `placeholder:"REV" help:"Fetch the files for the CPU of this revision of their repository, a commit or tag (default: the manifest's)."`
	HailoRT  string `name:"hailort" placeholder:"VERSION" help:"Fetch the NPU files made for this HailoRT, such as 5.1.1 (default: the installed one's, else the manifest's)."`
}

func (c *modelsPullCmd) Help() string {
	return `A pull that was interrupted goes on where it stopped. Every file is checked before it is used: against its
publisher's digest where that is known, else against the one recorded when it was first pulled. A file
that has changed since is refused; "models rm" forgets the record.

Examples:
  hailo-clip models pull clip-vit-b-32
  hailo-clip models pull clip-vit-b-32 --part npu --hailort 5.1.1
  hailo-clip models pull clip-vit-b-32 --revision 1234abc
  hailo-clip models pull clip-vit-b-32 --from-dir /media/usb/clip`
}

func (c *modelsPullCmd) Run(ctx context.Context, catalog *model.Catalog) error {
	o := model.PullOptions{FromDir: c.FromDir, Revision: c.Revision}
	machine := device.Read("/")
	_, chip := machine.Chip()
	switch {
	case c.Part == "cpu", c.Part == "auto" && !chip:
		o.Which = model.CPUPart
	case c.Part == "npu":
		o.Which = model.NPUPart
	}
	if c.HailoRT != "" {
		var ok bool
		if o.Zoo, ok = model.ZooRelease(c.HailoRT); !ok {
			return usageError{fmt.Errorf("--hailort %q: no release of the model zoo is known for it", c.HailoRT)}
		}
	} else if library := machine.Library(); library != "" {
		// Whether there is a node does not matter: after an installation it comes with the next start.
		o.Zoo, _ = model.ZooRelease(library) // "", the manifest's, where none is known
		if o.Zoo != "" && o.Which != model.CPUPart {
			complain("files for the NPU: model zoo %s, for HailoRT %s, which is installed", o.Zoo, library)
		}
	}
	bar := newByteBars()
	o.Progress = bar.set
	err := catalog.Pull(ctx, c.Name, o)
	bar.done(err == nil)
	if errors.Is(err, fetch.ErrDownload) {
		return fmt.Errorf("%w; without the network: put the files into a folder and give it with --from-dir", err)
	}
	if err != nil {
		return err
	}
	_, why, err := catalog.Resolve(ctx, c.Name)
	if err == nil {
		fmt.Fprintln(stdout, why)
	}
	return err
}

type modelsBuildTextCmd struct {
	Name       string `arg:"" help:"Name of the model, see models list."`
	Checkpoint string `arg:"" type:"existingfile" help:"The model's checkpoint: a .safetensors file of Hugging Face or OpenCLIP."`
}

func (c *modelsBuildTextCmd) Help() string {
	return `The vendor's text encoders take token embeddings and give hidden states. The table before them and the projection
after them it publishes for one model only; they are two matrices of the checkpoint that the model was compiled from.
"models list" and the error of a start say where that is. It is read once and may be deleted afterwards.

Example:
  hailo-clip models build-text tinyclip-vit-40m-32 model.safetensors`
}

func (c *modelsBuildTextCmd) Run(ctx context.Context, catalog *model.Catalog) error {
	files, err := catalog.BuildText(ctx, c.Name, c.Checkpoint)
	if err != nil {
		return err
	}
	for _, f := range files {
		fmt.Fprintln(stdout, fileLine(f))
	}
	return nil
}

type modelsVerifyCmd struct {
	Name string `arg:"" help:"Name of the model."`
	JSON bool   `help:"Print JSON."`
}

func (c *modelsVerifyCmd) Run(ctx context.Context, catalog *model.Catalog) error {
	files, verr := catalog.Verify(ctx, c.Name)
	if files == nil && verr != nil {
		return verr
	}
	if c.JSON {
		if err := printJSON(listFiles(files)); err != nil {
			return err
		}
	}
	missing := true
	for _, f := range files {
		missing = missing && f.Bytes == 0
		if !c.JSON {
			fmt.Fprintln(stdout, fileLine(f))
		}
	}
	if verr == nil && missing {
		return fmt.Errorf("%w: %s; install it with: hailo-clip models pull %s", model.ErrNotInstalled, c.Name, c.Name)
	}
	return verr
}

type modelsRmCmd struct {
	Name string `arg:"" help:"Name of the model."`
}

func (c *modelsRmCmd) Run(catalog *model.Catalog) error {
	freed, err := catalog.Remove(c.Name)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "removed %s, %d MB freed\n", c.Name, freed/1_000_000)
	return nil
}
