package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of a load.
const (
	MaxClients  = 4096
	MaxRate     = 100_000
	openClients = 512 // connections of an open loop; beyond that requests wait here, and it counts

	cameraClients = 32 // of a camera
)

// Load is how a service is asked.
type Load struct {
	Clients int  // closed loop: so many clients, each asks again when it has its answer; 1 to MaxClients
	Rate    int  // open loop, when above 0: so many requests a second, evenly spaced; up to MaxRate
	Poisson bool // with Rate: they come by chance, independent of each other
	Cameras int  // with Rate: they come from so many cameras, each evenly spaced, with connections of its own; up to MaxClients

	Streams // when it has a Kind: Clients streams of frames
}

func (l Load) String() string {
	switch {
	case l.Cameras > 0:
		return fmt.Sprintf("%d cameras of %d/s", l.Cameras, l.Rate/l.Cameras)
	case l.Poisson:
		return fmt.Sprintf("%d/s by chance", l.Rate)
	case l.Kind != "" && l.FPS == 0:
		return fmt.Sprintf("%d %s streams, one frame at a time", l.Clients, l.Kind)
	case l.Kind != "":
		return fmt.Sprintf("%d %s streams of %d/s", l.Clients, l.Kind, l.FPS)
	case l.Rate > 0:
		return fmt.Sprintf("%d/s", l.Rate)
	case l.Clients == 1:
		return "1 client"
	}
	return fmt.Sprintf("%d clients", l.Clients)
}

// open says that what is sent does not wait for answers.
func (l Load) open() bool { return l.Rate > 0 || l.FPS > 0 }

// Window is how long a load lasts.
type Window struct {
	Warmup   time.Duration // before anything counts
	Duration time.Duration // that counts
	Backoff  time.Duration // pause of a closed-loop client after an answer that is no good one
	Every    int           // of so many answers the times of the stages are read of one
}

// measure puts the target under load for another window of r, and blocks until every request is
// answered or given up: at most Warmup + Duration + twice the target's timeout. It ends early with
// the error of ctx, for which the caller closes the target then.
func (t *Target) measure(ctx context.Context, load Load, w Window, r *recording, progress func(done time.Duration)) error {
	if load.Kind != "" {
		return t.measureStreams(ctx, load, w, r, progress)
	}
	begin := time.Now()
	r.begin(begin.Add(w.Warmup), w.Duration)
	running, stop := context.WithDeadline(ctx, r.end)
	defer stop()

	var clients sync.WaitGroup
	if load.Rate > 0 {
		for camera := range max(load.Cameras, 1) {
			target, workers := t, openClients
			if load.Cameras > 0 {
				target, workers = t.apart(), cameraClients
				defer target.http.CloseIdleConnections()
			}
			due := make(chan time.Time)
			clients.Go(func() {
				defer close(due)
				schedule(running, begin, load.arrivals(camera), r, due)
			})
			for range workers {
				clients.Go(func() {
					x := target.newExchange()
					for at := range due {
						target.request(x, at, w, r)
					}
				})
			}
		}
	} else {
		for range load.Clients {
			clients.Go(func() { t.closedLoop(running, w, r) })
		}
	}
	r.watch(ctx, t, progress, begin)
	clients.Wait()
	return ctx.Err()
}

// request sends a request that is due and records its answer. One that nobody could send until it had
// timed out is given up, as its client would have done. The times of the stages are read by chance:
// every fourth of four images would always be the same one.
func (t *Target) request(x *exchange, due time.Time, w Window, r *recording) (code string) {
	code = codeLate
	if time.Since(due) < t.timeout {
		code = t.ask(x)
	}
	var timing []byte
	if code == "" && rand.IntN(w.Every) == 0 {
		timing = x.response.Header.Peek("Server-Timing")
	}
	r.add(due, time.Now(), code, timing)
	return code
}

// closedLoop is one client.
func (t *Target) closedLoop(ctx context.Context, w Window, r *recording) {
	for x := t.newExchange(); ctx.Err() == nil; {
		if code := t.request(x, time.Now(), w, r); code != "" && w.Backoff > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(w.Backoff):
			}
		}
	}
}

// arrivals returns how long after the one before it each request of an open loop is due, of one camera where there are some. The
// same ones in every turn.
func (l Load) arrivals(camera int) func() time.Duration {
	every := time.Duration(int64(time.Second) * int64(max(l.Cameras, 1)) / int64(l.Rate))
	rnd, first := rand.New(rand.NewPCG(1, uint64(camera))), true
	return func() time.Duration {
		switch {
		case l.Poisson:
			return time.Duration(rnd.ExpFloat64() * float64(every))
		case first:
			first = false
			if l.Cameras > 0 { // they do not know of each other
				return time.Duration(rnd.Float64() * float64(every))
			}
			return 0
		}
		return every
	}
}

// schedule says when each request of an open loop is due. It waits for a free client where all
// are busy, and the next requests are due when they would have been without that.
func schedule(ctx context.Context, begin time.Time, after func() time.Duration, r *recording, due chan<- time.Time) {
	for at := begin; ; {
		at = at.Add(after())
		if !at.Before(r.end) {
			return
		}
		if slept := sleepUntil(ctx, at); slept {
			r.addLag(at, time.Since(at))
		}
		due <- at // the clients take everything until the end, late as it may be
		if ctx.Err() != nil && time.Now().Before(r.end) {
			return // cancelled
		}
	}
}

// sleepUntil is false when there was no need to sleep. The kernel's clock is precise to about 0.1 ms,
// that of the Go runtime to 1 ms.
func sleepUntil(ctx context.Context, at time.Time) bool {
	slept := false
	for d := time.Until(at); d > 0 && ctx.Err() == nil; d = time.Until(at) {
		slept = true
		nap := unix.NsecToTimespec(int64(min(d, 50*time.Millisecond)))
		_ = unix.Nanosleep(&nap, nil) // the loop looks at the clock again
	}
	return slept
}
