package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"hailoclip/api/client"
	"hailoclip/cache/sets"
)

type promptSetsCmd struct {
	List   promptSetsListCmd   `cmd:"" help:"List the prompt sets."`
	Show   promptSetsShowCmd   `cmd:"" help:"Print a prompt set."`
	Put    promptSetsPutCmd    `cmd:"" help:"Make a prompt set of a file, or change it."`
	Add    promptSetsAddCmd    `cmd:"" help:"Add example images to a label of a prompt set."`
	Delete promptSetsDeleteCmd `cmd:"" help:"Delete prompt sets."`
	Export promptSetsExportCmd `cmd:"" help:"Write prompt sets with their examples to a file."`
	Import promptSetsImportCmd `cmd:"" help:"Make or change the prompt sets that a file has."`
}

func (c *promptSetsCmd) Help() string {
	return `A prompt set is a list of labels that the service compares images with, kept for good.

Examples:
  hailo-clip prompt-sets put door.yaml
  hailo-clip prompt-sets add door open frames/open/*.jpg
  hailo-clip classify frame.jpg --prompt-set door
  hailo-clip evaluate door frames
  hailo-clip prompt-sets export > all.yaml`
}

type promptSetsListCmd struct {
	asks
	JSON bool `name:"json" help:"Print JSON."`
}

func (c *promptSetsListCmd) Help() string {
	return `Example:
  hailo-clip prompt-sets list`
}

func (c *promptSetsListCmd) Run(ctx context.Context, g *globals) error {
	return c.service(ctx, g, func(s *client.Client) error {
		all, err := s.PromptSets(ctx)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(all)
		}
		names := []string{"prompt set"}
		for _, set := range all {
			names = append(names, set.Name)
		}
		width := longest(names...)
		fmt.Fprintf(stdout, "%s  labels  %-8s  %-12s  %s\n", pad(names[0], width), "state", "version", "model")
		for _, set := range all {
			readOnly := ""
			if set.ReadOnly {
				readOnly = "  (in the configuration)"
			}
			fmt.Fprintf(stdout, "%s  %6d  %-8s  %-12.12s  %s%s\n", pad(set.Name, width), set.Labels,
				printable(set.State), printable(set.ETag), printable(set.Model), readOnly)
		}
		return nil
	})
}

type promptSetsShowCmd struct {
	asks
	Name     string `arg:"" help:"Name of the set."`
	Format   string `enum:"yaml,json" default:"yaml" help:"How the definition is printed, as put reads it: yaml or json."`
	JSON     bool   `name:"json" help:"Print all that the service says of the set, as JSON."`
	Examples bool   `help:"With the vectors and thumbnails of examples."`
}

func (c *promptSetsShowCmd) Help() string {
	return `What is shown can be put again, but for examples: export has those, too.

Examples:
  hailo-clip prompt-sets show door
  hailo-clip prompt-sets show door --format json --url http://pi:5000`
}

func (c *promptSetsShowCmd) Run(ctx context.Context, g *globals) error {
	return c.service(ctx, g, func(s *client.Client) error {
		set, err := s.PromptSet(ctx, c.Name, c.Examples)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(set)
		}
		d, err := translated[sets.Definition](set.Definition)
		if err != nil {
			return err
		}
		if c.Format == "json" {
			return printJSON(d)
		}
		for _, line := range summary(set) {
			fmt.Fprintf(stdout, "# %s\n", line)
		}
		return writeYAML(stdout, d)
	})
}

// summary is what is known of a set beside its definition.
func summary(set client.PromptSet) []string {
	lines := []string{fmt.Sprintf("%s: %s, %d of %d texts encoded, model %s, version %.12s", printable(set.Name), printable(set.State),
		set.Encoded, set.Total, printable(set.Model), printable(set.ETag))}
	if set.ScoreSource != "" {
		lines = append(lines, "scores by "+printable(set.ScoreSource))
	}
	for _, reason := range append(set.Warnings, set.Reason) {
		if reason != "" {
			lines = append(lines, printable(reason))
		}
	}
	return lines
}

type promptSetsDeleteCmd struct {
	asks
	Names []string `arg:"" name:"name" help:"Names of the sets."`
}

func (c *promptSetsDeleteCmd) Help() string {
	return `Example:
  hailo-clip prompt-sets delete door gate`
}

func (c *promptSetsDeleteCmd) Run(ctx context.Context, g *globals) error {
	return c.service(ctx, g, func(s *client.Client) error {
		for _, name := range c.Names {
			if err := s.DeletePromptSet(ctx, name, client.Condition{}); err != nil {
				return fmt.Errorf("%s: %w", printable(name), err)
			}
			fmt.Fprintf(stdout, "%s: deleted\n", printable(name))
		}
		return nil
	})
}

type promptSetsExportCmd struct {
	asks
	Names   []string `arg:"" optional:"" name:"name" help:"Names of the sets (default: all)."`
	Out     string   `short:"o" placeholder:"FILE" help:"File to write (default: standard output)."`
	Format  string   `enum:",yaml,json" default:"" help:"Format: yaml or json (default: by the suffix of the file, else yaml)."`
	Offline bool     `help:"Read the file in the state folder, which no service may hold, without a model: also what is whole of a damaged one."`
}

func (c *promptSetsExportCmd) Help() string {
	return `Examples are written with their vectors and thumbnails, so that the sets can be imported anywhere.
The file can be part of a configuration, as it is.

Examples:
  hailo-clip prompt-sets export > all.yaml
  hailo-clip prompt-sets export door gate -o doors.json`
}

func (c *promptSetsExportCmd) Run(ctx context.Context, g *globals) error {
	if c.Offline && c.URL != "" {
		return usageError{errors.New("--offline is of no use with --url: it asks no service")}
	} else if c.Offline {
		all, lost := c.read(ctx, g)
		if len(all) == 0 && lost != nil {
			return lost
		}
		return errors.Join(c.write(all), lost)
	}
	return c.service(ctx, g, func(s *client.Client) error {
		if len(c.Names) == 0 {
			all, err := s.PromptSets(ctx)
			if err != nil {
				return err
			}
			for _, set := range all {
				c.Names = append(c.Names, set.Name)
			}
		}
		all := map[string]sets.Definition{}
		for _, name := range c.Names {
			set, err := s.PromptSet(ctx, name, true)
			if err != nil {
				return fmt.Errorf("%s: %w", printable(name), err)
			}
			if all[name], err = translated[sets.Definition](set.Definition); err != nil {
				return fmt.Errorf("%s: %w", printable(name), err)
			}
		}
		return c.write(all)
	})
}

// read returns the sets in the state folder. With an error it returns those that are whole.
func (c *promptSetsExportCmd) read(ctx context.Context, g *globals) (map[string]sets.Definition, error) {
	p, err := g.place()
	if err != nil {
		return nil, err
	}
	s, err := sets.OpenReadOnly(filepath.Join(p.state, sets.FileName))
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close(ctx) }()
	names := c.Names
	if len(names) == 0 {
		if names, err = s.Names(ctx); err != nil {
			return nil, err
		}
	}
	all := map[string]sets.Definition{}
	var lost []error
	for _, name := range names {
		r, err := s.Get(ctx, name)
		if err != nil {
			lost = append(lost, fmt.Errorf("%s: %w", printable(name), err))
			continue
		}
		all[name] = r.Definition
	}
	return all, errors.Join(lost...)
}

func (c *promptSetsExportCmd) write(all map[string]sets.Definition) error {
	document := map[string]any{setsSection: all}
	write := func(w io.Writer) error {
		if formatOf(c.Out, c.Format) == "json" {
			e := json.NewEncoder(w)
			e.SetEscapeHTML(false)
			return e.Encode(document)
		}
		return writeYAML(w, document)
	}
	if c.Out == "" {
		return write(stdout)
	}
	return writeFile(c.Out, write)
}
