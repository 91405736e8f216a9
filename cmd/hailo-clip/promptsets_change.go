package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"hailoclip/api/client"
	"hailoclip/cache/sets"
)

// changes are the flags of commands that change sets by a file.
type changes struct {
	asks
	Format  string `enum:",yaml,json" default:"" help:"Format of the file: yaml or json (default: by its suffix; yaml for standard input)."`
	Replace bool   `help:"Change a set also where examples are lost by that, which the file does not have."`
}

type promptSetsPutCmd struct {
	changes
	File    string `arg:"" help:"File with the definition of a set; - is standard input."`
	Name    string `placeholder:"NAME" help:"Name of the set (default: that of the file without its suffix)."`
	IfMatch string `placeholder:"VERSION" help:"Change the set only if this is its version, as list shows it."`
	New     bool   `help:"Make the set only if there is none of that name."`
}

func (c *promptSetsPutCmd) Help() string {
	return `The file has what PUT /v1/prompt-sets/NAME reads, as YAML or JSON:

  labels:
  - name: open
    prompts: [an open door, a door that stands open]
  - name: closed
    prompts: [a closed door]
  background: {auto: true}
  templates: clip7

Examples:
  hailo-clip prompt-sets put door.yaml
  hailo-clip prompt-sets show door --format json | hailo-clip prompt-sets put - --name gate --format json`
}

func (c *promptSetsPutCmd) Run(ctx context.Context, g *globals) error {
	if c.Name == "" && c.File != "-" {
		c.Name = strings.TrimSuffix(filepath.Base(c.File), filepath.Ext(c.File))
	}
	if !sets.ValidName(c.Name) {
		return usageError{fmt.Errorf("--name: %q is no name of a set: 1 to 64 of the characters A-Z a-z 0-9 . _ -, "+
			"the first one a letter or digit", c.Name)}
	}
	d, err := c.readDefinition(c.File)
	if err != nil {
		return err
	}
	return c.service(ctx, g, func(s *client.Client) error {
		return c.put(ctx, s, []namedSet{{c.Name, d, client.Condition{IfMatch: c.IfMatch, IfNoneMatch: c.New}}})
	})
}

type promptSetsImportCmd struct {
	changes
	File string `arg:"" help:"File that export has written, or a configuration with prompt_sets; - is standard input."`
}

func (c *promptSetsImportCmd) Help() string {
	return `Sets that the file does not have stay as they are. Nothing is changed when anything in the file is wrong or unknown.

Examples:
  hailo-clip prompt-sets import all.yaml
  ssh pi hailo-clip prompt-sets export | hailo-clip prompt-sets import -`
}

func (c *promptSetsImportCmd) Run(ctx context.Context, g *globals) error {
	all, err := c.readSets(c.File)
	if err != nil {
		return err
	}
	return c.service(ctx, g, func(s *client.Client) error { return c.put(ctx, s, all) })
}

// namedSet is what a set is to be.
type namedSet struct {
	name       string
	definition sets.Definition
	condition  client.Condition
}

// put makes or changes sets, none of them where one would lose examples, waits until they are encoded, and says what it
// has done.
func (c *changes) put(ctx context.Context, s *client.Client, all []namedSet) error {
	former := make([]client.PromptSet, len(all))
	for i, set := range all {
		there, err := s.PromptSet(ctx, set.name, false)
		switch {
		case isCode(err, "prompt_set_not_found"):
		case err != nil:
			return err
		case there.ReadOnly:
			return fmt.Errorf("the set %s is in the configuration of the service, and can be changed there only", set.name)
		default:
			if lost := lostExamples(there, set.definition); len(lost) > 0 && !c.Replace {
				return fmt.Errorf("the set %s has examples which the file does not have, of %s: --replace gives them up",
					set.name, strings.Join(lost, ", "))
			}
		}
		former[i] = there
	}
	for i, set := range all {
		condition := set.condition
		if condition == (client.Condition{}) { // what was looked at above is what is changed
			condition = client.Condition{IfMatch: former[i].ETag, IfNoneMatch: former[i].ETag == ""}
		} else if m := condition.IfMatch; len(m) >= len("0123456789ab") && strings.HasPrefix(former[i].ETag, m) { // as list shows it
			condition.IfMatch = former[i].ETag
		}
		d, err := translated[client.Definition](set.definition)
		if err != nil {
			return fmt.Errorf("%s: %w", set.name, err)
		}
		put, created, err := s.PutPromptSet(ctx, set.name, d, condition)
		if err != nil {
			return fmt.Errorf("%s: %w", set.name, err)
		}
		what := "changed"
		switch {
		case created:
			what = "made"
		case put.ETag == former[i].ETag:
			what = "unchanged"
		}
		fmt.Fprintf(stdout, "%s: %s, %d labels, version %.12s\n", set.name, what, len(put.Labels), printable(put.ETag))
		for _, warning := range put.Warnings {
			complain("%s: warning: %s", set.name, warning)
		}
	}
	for _, set := range all {
		if err := waitEncoded(ctx, s, set.name); err != nil {
			return err
		}
	}
	return nil
}

// errNotEncoded says that a set cannot be encoded.
var errNotEncoded = errors.New("the set cannot be encoded")

// waitEncoded returns when a set is ready. Errors: those of the client, errNotEncoded.
func waitEncoded(ctx context.Context, s *client.Client, name string) error {
	bar, told := newBars(), ""
	set, err := s.WaitPromptSet(ctx, name, func(set client.PromptSet) {
		if set.Reason != told {
			complain("hailo-clip: %s waits to be encoded: %s", printable(set.Name), set.Reason)
			told = set.Reason
		}
		bar.set("encoding "+set.Name, int64(set.Encoded), int64(set.Total))
	})
	bar.done(err == nil)
	if err == nil && set.State != client.SetReady {
		err = fmt.Errorf("%s: %w: %s", name, errNotEncoded, set.Reason)
	}
	return err
}

// isCode says that err is an answer of the service with that code.
func isCode(err error, code string) bool {
	var e *client.Error
	return errors.As(err, &e) && e.Code == code
}

// lostExamples are the labels that have examples in a set which its new definition has not; "the background" is one.
func lostExamples(there client.PromptSet, d sets.Definition) (labels []string) {
	kept := func(label string) (ids []string) {
		examples := d.Background.Examples
		if label != "" {
			i := slices.IndexFunc(d.Labels, func(l sets.Label) bool { return l.Name == label })
			if i < 0 {
				return nil
			}
			examples = d.Labels[i].Examples
		}
		for _, e := range examples {
			ids = append(ids, e.ID)
		}
		return ids
	}
	for _, l := range append(there.Labels, client.Label{Examples: there.Background.Examples}) {
		ids := kept(l.Name)
		if slices.ContainsFunc(l.Examples, func(e client.Example) bool { return !slices.Contains(ids, e.ID) }) {
			labels = append(labels, cmp.Or(printable(l.Name), "the background"))
		}
	}
	return labels
}

type promptSetsAddCmd struct {
	asks
	Name   string   `arg:"" help:"Name of the set."`
	Label  string   `arg:"" help:"Label that the images show, or background: none of the labels."`
	Images []string `arg:"" name:"image" help:"Image files; - reads one from standard input."`
}

func (c *promptSetsAddCmd) Help() string {
	return `Of each image a vector and a thumbnail of 96 pixels are kept. Images that were answered wrongly teach most.

Examples:
  hailo-clip prompt-sets add door open frames/open/*.jpg`
}

func (c *promptSetsAddCmd) Run(ctx context.Context, g *globals) error {
	return c.service(ctx, g, func(s *client.Client) error {
		for _, name := range c.Images {
			image, err := readImage(name, maxBenchImage)
			if err == nil {
				_, err = s.AddExample(ctx, c.Name, c.Label, image, nil, client.Condition{})
			}
			if err != nil {
				return fmt.Errorf("%s: %w", printable(name), err)
			}
			fmt.Fprintf(stdout, "%s: an example of %s\n", printable(name), printable(c.Label))
		}
		return waitEncoded(ctx, s, c.Name)
	})
}
