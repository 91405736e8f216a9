package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"hailoclip/api/bulk"
	"hailoclip/api/bulk/sink"
	"hailoclip/api/bulk/source"
	"hailoclip/cache/boltfile"
)

type indexCmd struct {
	Run    indexRunCmd    `cmd:"" default:"withargs" help:"Index images (the default)."`
	Status indexStatusCmd `cmd:"" help:"Say how an index stands, also while it is made."`
	Verify indexVerifyCmd `cmd:"" help:"Compare the rows of an index with what should be there."`
}

// indexExamples are shown for index and for index run.
const indexExamples = `Examples:
  hailo-clip index photos --out vectors.ndjson
  hailo-clip index photos.tar.gz --out vectors.parquet
  hailo-clip index list.txt --out labels.ndjson -p "a photo of a cat" -p "a photo of a dog"
  hailo-clip index photos --out vectors.ndjson --url http://pi:5000 --resize 256
  hailo-clip index photos --out vectors.ndjson --fleet
  hailo-clip index photos --out labels.ndjson --fleet --prompt-set door
  hailo-clip index http://nas/photos/ --out qdrant://127.0.0.1:6333/photos
  hailo-clip index status --out vectors.ndjson
  hailo-clip index verify --out vectors.ndjson`

func (c *indexCmd) Help() string {
	return `"hailo-clip index" without a command is "hailo-clip index run". Stopped or killed at any moment, the same command goes on where it was;
run again later, it looks for what is new or has changed.
All flags: hailo-clip index run --help

` + indexExamples
}

// indexFlags say which index is meant.
type indexFlags struct {
	Out     string `required:"" placeholder:"SINK" help:"Where the rows go: FILE.ndjson, FILE.parquet, FILE.db, postgres://..., qdrant://..."`
	Journal string `placeholder:"FILE" help:"What is remembered between runs (default: SINK.journal beside a file, else a file in the state folder)."`
}

// journal is the path of the journal. source returns the name of the source, which a database's depends on; "": none was given.
func (f *indexFlags) journal(g *globals, source func() (string, error)) (string, error) {
	switch {
	case f.Journal != "":
		return f.Journal, nil
	case !strings.Contains(f.Out, "://"):
		return f.Out + ".journal", nil
	}
	name, err := source()
	switch {
	case err != nil:
		return "", err
	case name == "":
		return "", usageError{errors.New("give SOURCE, too, or --journal: a database may have the rows of several sources")}
	}
	state, err := g.state()
	return filepath.Join(state, "index", bulk.JobID(name, sink.Name(f.Out))+".journal"), err
}

// sourceName opens a source to know its name; address "" is none.
func sourceName(address string) (string, error) {
	if address == "" {
		return "", nil
	}
	s, err := source.Open(address, source.Options{Stdin: os.Stdin})
	if err != nil {
		return "", usageError{err}
	}
	defer closeSource(s)
	return s.Name(), nil
}

func closeSource(s bulk.Source) {
	if c, ok := s.(interface{ Close() error }); ok {
		_ = c.Close() // it was only read
	}
}

// explain adds what to do about errors of journals.
func (f *indexFlags) explain(err error, journal string) error {
	switch {
	case errors.Is(err, boltfile.ErrLocked):
		return fmt.Errorf("%s is in use: this index is being made by another process (see: hailo-clip index status --out %s)",
			journal, printable(sink.Name(f.Out)))
	case errors.Is(err, boltfile.ErrDamaged):
		return fmt.Errorf("%w; remove %s and the rows to begin anew", err, journal)
	case errors.Is(err, bulk.ErrChanged):
		return fmt.Errorf("%w; to keep the rows that are whole: hailo-clip index verify --out %s --repair", err, printable(sink.Name(f.Out)))
	case errors.Is(err, bulk.ErrOtherJob):
		return usageError{fmt.Errorf("%w. Rows of different kinds are not mixed: name another --out; or, to make these anew, remove them and %s",
			err, journal)}
	}
	return err
}
