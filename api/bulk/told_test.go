package bulk

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// killedSink is one of a process that is killed after its rows are durable and before the journal is.
type killedSink struct{ *NDJSON }

var errKilled = errors.New("killed")

func (s killedSink) Put(ctx context.Context, rows []Row) error {
	return errors.Join(s.NDJSON.Put(ctx, rows), errKilled)
}

func (s killedSink) Rewind(mark int64) error {
	if s.Mark() > mark {
		return errKilled
	}
	return s.NDJSON.Rewind(mark)
}

// TestKilledAtFirstRows: rows that the first run has put before its first commit are cut off by the next run.
func TestKilledAtFirstRows(t *testing.T) {
	b := newBench(t)
	for i := range 20 {
		b.write(fmt.Sprint(i), fmt.Sprint("image ", i))
	}
	if _, err := b.run(func(j *Job) { j.Sink = killedSink{j.Sink.(*NDJSON)} }); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	if len(b.rows()) == 0 {
		t.Fatal("nothing was put")
	}
	b.mustRun(nil)
	b.check()
	if v := b.verified(false); !v.Good(false) || v.Rows != 20 {
		t.Errorf("%+v", v)
	}
}

// TestRepairAfterKill: rows that a process has put, and could not note before it was killed, are not there twice when a repair comes before
// the next run.
func TestRepairAfterKill(t *testing.T) {
	b := newBench(t)
	b.write("first", "one")
	b.mustRun(nil)
	b.write("second", "two") // which the journal does not know afterwards
	if _, err := b.run(func(j *Job) { j.Sink = killedSink{j.Sink.(*NDJSON)} }); !errors.Is(err, errKilled) || len(b.rows()) != 2 {
		t.Fatal(err, b.rows())
	}
	b.verified(true)
	b.mustRun(nil)
	b.check()
	if v := b.verified(false); !v.Good(false) || v.Rows != 2 {
		t.Errorf("%+v", v)
	}
}

// killedFinish is a sink of a process that is killed after rows were cut out.
type killedFinish struct{ *NDJSON }

func (s killedFinish) Finish(ctx context.Context) error {
	return errors.Join(s.NDJSON.Finish(ctx), errKilled)
}

// TestRepairAfterKilledFinish: a row that was cut out, of which a process that was killed could not note that, is not taken for one that is there
// when a repair comes before the next run.
func TestRepairAfterKilledFinish(t *testing.T) {
	b := newBench(t)
	b.write("a", "one")
	b.write("b", "two")
	b.mustRun(nil)
	b.write("a", "three")
	if _, err := b.run(func(j *Job) { j.Sink = killedFinish{j.Sink.(*NDJSON)} }); !errors.Is(err, errKilled) || len(b.rows()) != 2 {
		t.Fatal(err, b.rows())
	}
	b.verified(true)
	b.write("a", "one")
	b.mustRun(nil)
	b.check()
	if v := b.verified(false); !v.Good(false) {
		t.Errorf("%+v", v)
	}
}

// oweEncoder loses the first image that it gets, and is not idle before all of its results are stored.
type oweEncoder struct {
	results    chan Result
	lost       atomic.Bool
	sent, told atomic.Int64
}

func (e *oweEncoder) Model() string                      { return "model" }
func (e *oweEncoder) Digest() string                     { return testDigest }
func (e *oweEncoder) Results() <-chan Result             { return e.results }
func (e *oweEncoder) Idle(context.Context) (bool, error) { return e.sent.Load() == e.told.Load(), nil }
func (e *oweEncoder) Close(context.Context) error        { return nil }
func (e *oweEncoder) Send(_ context.Context, key string, image []byte) error {
	if !e.lost.Swap(true) {
		return nil
	}
	e.sent.Add(1)
	e.results <- Result{Key: key, Vector: vectorOf(image), Stored: func() { e.told.Add(1) }}
	return nil
}

// TestStoredIsTold: that a row is stored is told also when it was the last one of a full batch and nothing follows.
func TestStoredIsTold(t *testing.T) {
	b := newBench(t)
	for i := range batchRows + 1 {
		b.write(fmt.Sprintf("%03d", i), fmt.Sprint("image ", i))
	}
	e := &oweEncoder{results: make(chan Result, 2*batchRows)}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	j, err := OpenJournal(filepath.Join(t.TempDir(), "journal"), true)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	s, err := OpenNDJSON(b.out)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := Run(ctx, Job{Source: b.job.Source, Sink: s, Encoder: e, Journal: j, Name: "out", Dimension: testDim}); err != nil {
		t.Fatal(err)
	}
	b.check()
	if e.sent.Load() != batchRows+1 || e.told.Load() != batchRows+1 {
		t.Errorf("%d results, %d told", e.sent.Load(), e.told.Load())
	}
}

// TestManyEqualInterrupted: a run that ended between the rows of one content leaves nothing waiting behind when it goes on.
func TestManyEqualInterrupted(t *testing.T) {
	b := newBench(t)
	for i := range 2*batchRows - 10 {
		b.write(fmt.Sprint(i), "the same")
	}
	slow := NewDirect("model", testDigest, 8, func(_ context.Context, image []byte) ([]float32, []Match, error) {
		time.Sleep(400 * time.Millisecond) // all are found before
		return vectorOf(image), nil, nil
	})
	defer slow.Close(context.Background())
	b.job.Encoder = slow
	puts := 0
	if _, err := b.run(func(j *Job) { j.Sink = secondFails{j.Sink.(*NDJSON), &puts} }); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	b.mustRun(nil)
	b.check()
	j, err := OpenJournal(b.out+".journal", false)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if left, err := j.some(bucketWaiting, nil, 10); err != nil || len(left) > 0 {
		t.Errorf("%q wait, %v", left, err)
	}
}

type secondFails struct {
	*NDJSON
	puts *int
}

func (s secondFails) Put(ctx context.Context, rows []Row) error {
	if *s.puts++; *s.puts > 1 {
		return errKilled
	}
	return s.NDJSON.Put(ctx, rows)
}
