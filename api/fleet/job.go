package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// job is what the broker keeps of an index that is made through it, in JobBucket under the job's id.
type job struct {
	JobStatus
	// Round is part of the ids of messages: it grows whenever nothing is under way, so that the broker takes an image again whose
	// result is lost, but not one that is sent again after who indexes was restarted.
	Round int `json:"round"`
}

const (
	jobTime   = 2 * time.Second // after which a job that goes on is told of again
	staleTime = 30 * time.Second
	mostJobs  = 64       // that are told of
	maxJob    = 16 << 10 // bytes of a job
)

// loadJob returns what is kept of a job and its revision; both are zero where there is nothing that can be read.
func (c *Conn) loadJob(ctx context.Context, id string) (j job, revision uint64, err error) {
	ctx, end := c.ask(ctx, 0)
	defer end(&err)
	jobs, err := c.js.KeyValue(ctx, JobBucket)
	if err != nil {
		return j, 0, err
	}
	entry, err := jobs.Get(ctx, id)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return j, 0, nil
	}
	if err != nil {
		return j, 0, err
	}
	if len(entry.Value()) > maxJob || json.Unmarshal(entry.Value(), &j) != nil || j.Round < 0 {
		j = job{}
	}
	return j, entry.Revision(), nil
}

// saveJob stores j over the revision that was seen last, 0: there was none. It returns the new one. When another has stored it
// meanwhile the error is jetstream.ErrKeyExists.
func (c *Conn) saveJob(ctx context.Context, j job, revision uint64) (now uint64, err error) {
	ctx, end := c.ask(ctx, 0)
	defer end(&err)
	jobs, err := c.js.KeyValue(ctx, JobBucket)
	if err != nil {
		return 0, err
	}
	data, err := json.Marshal(j)
	if err != nil {
		return 0, err
	}
	if revision == 0 {
		return jobs.Create(ctx, j.Job, data)
	}
	return jobs.Update(ctx, j.Job, data, revision)
}

// Jobs returns the jobs that the broker knows, the newest first, 64 at most. It takes some seconds at most. Errors: those of the broker,
// and that there are too many to be read; then with those that were read.
func (c *Conn) Jobs(ctx context.Context) (list []JobStatus, err error) {
	err = c.read(ctx, "KV_"+JobBucket, "$KV."+JobBucket+".>", 1, func(m jetstream.Msg) {
		var j job
		id := strings.TrimPrefix(m.Subject(), "$KV."+JobBucket+".")
		if len(m.Data()) <= maxJob && json.Unmarshal(m.Data(), &j) == nil && j.Job == id && name.MatchString(id) {
			list = append(list, j.now())
		}
	})
	slices.SortFunc(list, func(a, b JobStatus) int { return b.Changed.Compare(a.Changed) })
	return list[:min(len(list), mostJobs)], err
}

// now is what is told of a job: one that nobody has told of for a while is stale.
func (j *job) now() JobStatus {
	s := j.JobStatus
	if s.State == "running" && time.Since(s.Changed) > staleTime {
		s.State = "stale"
	}
	return s
}

func (n *Node) reportJobs(ctx context.Context, s *Status) (err error) {
	s.Jobs, err = n.Jobs(ctx)
	return err
}

func (n *Node) reportWorker(_ context.Context, s *Status) error {
	c := &n.bulk
	s.Worker = &WorkerStatus{
		Encoded: c.encoded.Load(), Bytes: c.bytes.Load(), Failed: c.failed.Load(), Returned: c.returned.Load(), Redelivered: c.redelivered.Load(),
		Duplicates: c.duplicates.Load(), Dead: c.dead.Load(), InFlight: int(c.inFlight.Load()),
	}
	return nil
}

// Names and metadata of the consumers that workers take images from.
const (
	consumerPrefix = "npu-" // + bulk.Short of the digest
	metaModel      = "clip-model"
	metaDigest     = "clip-digest"
	metaDimension  = "clip-dimension"
)

// Encoders are the models that images are encoded with through the broker.
type Encoders struct {
	Model, Digest string // of the image encoder; the latter is bulk.Prepared
	Dimension     int    // of vectors
	Busy          bool   // workers ask for images, or have some
}

// Encoders returns what workers encode with, or have done in the last days. Errors: those of the broker.
func (c *Conn) Encoders(ctx context.Context) (list []Encoders, err error) {
	ctx, end := c.ask(ctx, 0)
	defer end(&err)
	stream, err := c.js.Stream(ctx, BulkStream)
	if err != nil {
		return nil, err
	}
	consumers := stream.ListConsumers(ctx)
	for info := range consumers.Info() {
		e := Encoders{Model: info.Config.Metadata[metaModel], Digest: info.Config.Metadata[metaDigest], Busy: info.NumWaiting > 0 || info.NumAckPending > 0}
		e.Dimension, err = strconv.Atoi(info.Config.Metadata[metaDimension])
		if strings.HasPrefix(info.Name, consumerPrefix) && e.Digest != "" && err == nil && e.Dimension > 0 && e.Dimension <= maxDimension {
			list = append(list, e)
		}
	}
	return list, consumers.Err()
}

// choose returns the encoder of a model, or of the only one that workers have for "". Those at work come first.
func choose(list []Encoders, model string) (Encoders, error) {
	var names []string
	for _, busy := range []bool{true, false} {
		var fit []Encoders
		for _, e := range list {
			if e.Busy == busy && (model == "" || e.Model == model) {
				fit = append(fit, e)
			}
			names = append(names, e.Model)
		}
		switch {
		case len(fit) == 1:
			return fit[0], nil
		case len(fit) > 1 && !slices.ContainsFunc(fit, func(e Encoders) bool { return e.Model != fit[0].Model }):
			var digests []string
			for _, e := range fit {
				digests = append(digests, fmt.Sprintf("%.128q", e.Digest))
			}
			return Encoders{}, fmt.Errorf("the fleet's nodes have different encoders of the model %s, whose vectors must not mix: %s; "+
				"give all nodes the same model files and image settings, and libjpeg-turbo to all or none", fit[0].Model, strings.Join(digests, ", "))
		case len(fit) > 1:
			return Encoders{}, fmt.Errorf("the fleet's nodes encode with several models, say which: %s", strings.Join(slices.Compact(slices.Sorted(slices.Values(names))), ", "))
		}
	}
	if len(names) > 0 {
		return Encoders{}, fmt.Errorf("no node of the fleet encodes with the model %s, but with %s", model, strings.Join(slices.Compact(slices.Sorted(slices.Values(names))), ", "))
	}
	return Encoders{}, errors.New("no node of the fleet has encoded images of an index yet: start a service with fleet.bulk")
}
