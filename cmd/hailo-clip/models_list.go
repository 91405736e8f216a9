package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"hailoclip/hailo/model"
)

type modelsListCmd struct {
	JSON bool `help:"Print JSON."`
}

func (c *modelsListCmd) Help() string {
	return `What to choose by: images and texts a second on a Hailo-10H in runs of eight, and how often the first of 100 labels
is right there (CIFAR-100, without training), as its vendor published them. Vectors of one model are of no use to another.

Examples:
  hailo-clip models list
  hailo-clip models list --json | jq -r '.[].name'`
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
			figure(l.Rates.image(), 0), figure(l.Rates.text(), 0), figure(l.chip(), 1),
			megabytes(l.DiskBytes, false), megabytes(l.PullBytes, l.PullMore))
		fmt.Fprint(stdout, wrapped(printable(in.Manifest.Description), "  "))
		if in.Manifest.NPU != nil && in.NPU != model.Missing && unmade(in) {
			what := "texts are encoded on the CPU; for the NPU "
			if in.Manifest.CPU == nil {
				what = "not to be used yet: "
			}
			fmt.Fprint(stdout, wrapped(what+in.Manifest.HowToMake(), "  "))
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

// listedBenchmark is the one that the table shows, as the known manifests call it.
const listedBenchmark = "CIFAR-100 top-1"

// chip is what listedBenchmark gave on the chip; 0 where it is not known.
func (l listedModel) chip() float64 {
	for _, b := range l.Benchmarks {
		if b.What == listedBenchmark {
			return b.Chip
		}
	}
	return 0
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
