package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	Share  modelsShareCmd  `cmd:"" help:"Give the files of a model to the fleet."`

	BuildText modelsBuildTextCmd `cmd:"" help:"Make what encoding texts on the NPU needs from a checkpoint of the model."`
}

func (c *modelsCmd) Help() string {
	return `Examples:
  hailo-clip models list
  hailo-clip models pull clip-vit-b-32
  hailo-clip models verify clip-vit-b-32`
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
	FromDir  string `type:"existingdir" placeholder:"DIR" xor:"from" help:"Copy the files from this folder instead of the network."`
	Fleet    bool   `xor:"from" help:"Fetch the files from the fleet, see \"models share\", instead of their publisher."`
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
  hailo-clip models pull clip-vit-b-32 --from-dir /media/usb/clip
  hailo-clip models pull clip-vit-b-32 --fleet`
}

func (c *modelsPullCmd) Run(ctx context.Context, g *globals, catalog *model.Catalog) error {
	o := model.PullOptions{FromDir: c.FromDir, Revision: c.Revision}
	machine := device.Read("/")
	_, chip := machine.Chip()
	switch {
	case c.Part == "cpu", c.Part == "auto" && !chip && forCPU(catalog, c.Name):
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
	pull := catalog.Pull
	if c.Fleet {
		pull = func(ctx context.Context, name string, o model.PullOptions) error {
			return pullFromFleet(ctx, g, catalog, name, o)
		}
	}
	err := pull(ctx, c.Name, o)
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

// forCPU says whether a model is made for the CPU, or not known.
func forCPU(catalog *model.Catalog, name string) bool {
	m, err := catalog.Manifest(name)
	return err != nil || m.CPU != nil
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
	if _, why, err := catalog.Resolve(ctx, c.Name); err == nil {
		fmt.Fprintln(stdout, why)
	}
	return nil
}

type modelsVerifyCmd struct {
	Name string `arg:"" help:"Name of the model."`
	JSON bool   `help:"Print JSON."`
}

func (c *modelsVerifyCmd) Help() string {
	return `Exit code 1 when a file is damaged, 3 when one is missing.

Example:
  hailo-clip models verify clip-vit-b-32`
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

func (c *modelsRmCmd) Help() string {
	return `The recorded digests of the model go, too. A model that is pulled again may be another revision.

Example:
  hailo-clip models rm clip-vit-b-32`
}

func (c *modelsRmCmd) Run(catalog *model.Catalog) error {
	freed, err := catalog.Remove(c.Name)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "removed %s, %d MB freed\n", c.Name, freed/1_000_000)
	return nil
}
