package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"hailoclip/api/client"
	"hailoclip/api/stream/source"
	"hailoclip/bench/report"
)

type evaluateCmd struct {
	asks
	Set       string  `arg:"" help:"Name of the prompt set."`
	Folder    string  `arg:"" type:"existingdir" help:"Folder with a folder of images for each label, named as the label."`
	Precision float64 `default:"0.95" placeholder:"P" help:"Precision that the thresholds of the labels are to have, above 0 and at most 1 (default ${default})."`
	Apply     bool    `help:"Store the thresholds and the fitted temperature in the set."`
	JSON      bool    `name:"json" help:"Print JSON."`
	HTML      string  `name:"html" placeholder:"FILE" help:"Write a page with the confusion matrix; it needs no network."`
}

func (c *evaluateCmd) Help() string {
	return `Images in a folder "background", or in one of a negative label, show none of the labels.

Examples:
  hailo-clip evaluate door frames               # frames/open/*.jpg, frames/closed/*.jpg, frames/background/*.jpg
  hailo-clip evaluate door frames --precision 0.99 --apply
  hailo-clip evaluate door frames --html door.html --url http://pi:5000`
}

func (c *evaluateCmd) Run(ctx context.Context, g *globals) error {
	if !(c.Precision > 0 && c.Precision <= 1) {
		return usageError{fmt.Errorf("--precision: %v is out of bounds: above 0, at most 1", c.Precision)}
	}
	files, err := labelled(c.Folder)
	if err != nil {
		return err
	}
	if n := len(files); n > client.MaxEvaluated {
		files = evenly(files, client.MaxEvaluated)
		complain("hailo-clip: %d of the %d images are taken, evenly: a request has no more", len(files), n)
	}
	if c.HTML != "" {
		if err := writable(c.HTML); err != nil {
			return err
		}
	}
	return c.service(ctx, g, func(s *client.Client) error {
		set, err := s.PromptSet(ctx, c.Set, false)
		if err == nil {
			err = c.known(set, files)
		}
		if err == nil {
			err = waitEncoded(ctx, s, c.Set)
		}
		if err != nil {
			return err
		}
		images, err := readLabelled(files)
		if err != nil {
			return err
		}
		e, err := s.Evaluate(ctx, c.Set, images, client.EvaluateOptions{Precision: c.Precision, Apply: c.Apply})
		if isCode(err, "body_too_large") {
			err = fmt.Errorf("%w; take fewer or smaller images, or raise the service's server.max_batch_body_bytes", err)
		}
		if err != nil {
			return err
		}
		for _, failed := range e.Errors {
			if failed.Image >= 0 && failed.Image < len(files) {
				complain("hailo-clip: %s: %s", printable(files[failed.Image].path), failed.Error)
			}
		}
		return c.print(report.Evaluation{Evaluation: e, Wanted: c.Precision})
	})
}

func (c *evaluateCmd) print(e report.Evaluation) error {
	if c.JSON {
		if err := printJSON(e.Evaluation); err != nil || c.HTML == "" {
			return err
		}
	}
	if err := e.Check(); err != nil {
		return err
	}
	if !c.JSON {
		e.WriteTable(stdout)
		if c.Apply {
			fmt.Fprintln(stdout, "\nThe thresholds, and the temperature where one was fitted, are stored in the set.")
		}
	}
	return writeFile(c.HTML, e.WriteHTML)
}

// known refuses folders that are not named as a label of the set.
func (c *evaluateCmd) known(set client.PromptSet, files []labelledFile) error {
	var names, unknown []string
	for _, l := range set.Labels {
		names = append(names, l.Name)
	}
	for _, f := range files {
		if !slices.Contains(names, f.label) && f.label != client.BackgroundLabel && !slices.Contains(unknown, f.label) {
			unknown = append(unknown, f.label)
		}
	}
	if len(unknown) > 0 {
		return usageError{fmt.Errorf("%s has folders %q, and the set %s has the labels %q", c.Folder, unknown, c.Set, names)}
	}
	return nil
}

// labelledFile is an image file, by the folder it is in.
type labelledFile struct{ label, path string }

// labelled finds the images in the folders below root.
func labelled(root string) (files []labelledFile, err error) {
	folders, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	others := 0
	for _, folder := range folders {
		path := filepath.Join(root, folder.Name())
		if info, err := os.Stat(path); err != nil || !info.IsDir() || strings.HasPrefix(folder.Name(), ".") { // it may be a link to one
			others++
			continue
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, err
		}
		found := 0
		for _, e := range entries {
			if e.IsDir() || strings.HasPrefix(e.Name(), ".") || !source.IsImage(e.Name()) {
				others++
				continue
			}
			found++
			files = append(files, labelledFile{folder.Name(), filepath.Join(path, e.Name())})
		}
		if found == 0 {
			complain("hailo-clip: %s has no images", path)
		}
	}
	if others > 0 {
		complain("hailo-clip: %d files and folders in %s that are no images in a folder of a label are not looked at", others, root)
	}
	if len(files) == 0 {
		err = usageError{fmt.Errorf("%s has no images in folders that are named as the labels", root)}
	}
	return files, err
}

// evenly takes n of the files.
func evenly(files []labelledFile, n int) []labelledFile {
	taken := make([]labelledFile, n)
	for i := range taken {
		taken[i] = files[i*len(files)/n]
	}
	return taken
}

// maxLabelled bounds what is read into memory.
const maxLabelled = 1 << 30

// readLabelled reads all of the images.
func readLabelled(files []labelledFile) (images []client.LabeledImage, err error) {
	bytes := 0
	for _, f := range files {
		data, err := readImage(f.path, maxBenchImage)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.path, err)
		}
		if bytes += len(data); bytes > maxLabelled {
			return nil, errors.New("the images are larger than 1 GiB in all")
		}
		images = append(images, client.LabeledImage{Label: f.label, Image: data})
	}
	return images, nil
}
