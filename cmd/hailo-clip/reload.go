package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"hailoclip/api"
	"hailoclip/api/stream"
	"hailoclip/cache/sets"
	"hailoclip/configs"
	"hailoclip/hailo/safefile"
)

// liveSettings are settings that a reload can apply together.
type liveSettings struct {
	keys  []string // as configs.Among has them
	apply func(context.Context, configs.Config) error
}

// live lists all settings that a reload can apply; hailo-clip.yaml has the same list. All others need a restart.
func (s *service) live() []liveSettings {
	keys := func(section string, names ...string) (all []string) {
		for _, name := range names {
			all = append(all, section+"."+name)
		}
		return all
	}
	return []liveSettings{
		{[]string{"logging."}, func(_ context.Context, c configs.Config) error {
			stderr.apply(c.Logging)
			s.server.SetLogEvery(c.Logging.Requests)
			return nil
		}},
		{[]string{"access."}, func(_ context.Context, c configs.Config) error {
			s.access.Apply(c.Access)
			return nil
		}},
		{[]string{"server.tls."}, func(_ context.Context, c configs.Config) error {
			return s.server.SetCertificate(c.Server.TLS)
		}},
		{slices.Concat(keys("server", api.LiveSettings...), keys("performance", "request_timeout", "batch_timeout"), []string{"streams.", "compat."}),
			func(_ context.Context, c configs.Config) error {
				s.server.Apply(c.Server, c.Compat, c.Performance.RequestTimeout, c.Performance.BatchTimeout)
				limits := stream.Limits{Prompts: c.Server.MaxPrompts, PromptBytes: c.Server.MaxPromptBytes}
				s.streams.hub.Apply(c.Streams, limits, c.Performance.RequestTimeout)
				s.engine.PromptSets().SetLimits(sets.Limits{PromptBytes: c.Server.MaxPromptBytes})
				return nil
			}},
		{[]string{"server.shutdown_timeout"}, func(context.Context, configs.Config) error { return nil }}, // run reads it from the reloader
		{[]string{"fetch."}, func(_ context.Context, c configs.Config) error {
			s.streams.allowed.Apply(c.Fetch)
			return nil
		}},
		{[]string{"events."}, func(_ context.Context, c configs.Config) error {
			if s.streams.store != nil {
				s.streams.store.Apply(c.Events)
			}
			return nil
		}},
		{[]string{"text_embedding.prompt_file"}, func(_ context.Context, c configs.Config) error {
			select {
			case <-s.prompts: // an earlier change that nobody has taken yet
			default:
			}
			s.prompts <- c
			return nil
		}},
		{[]string{"prompt_sets"}, func(ctx context.Context, c configs.Config) error {
			return s.engine.PromptSets().Configure(ctx, c.PromptSets)
		}},
	}
}

// reloader loads the configuration again while the service runs, and applies it. Safe for concurrent use.
type reloader struct {
	service *service                       // set before there can be a reload
	load    func() (configs.Loaded, error) // as at the start, with the environment and the flags on top; nil: there are no reloads
	log     *slog.Logger

	cfg atomic.Pointer[configs.Config] // what the service runs with

	mu    sync.Mutex                   // held for a whole reload
	files map[string][sha256.Size]byte // by key: digests of the files that cfg names
}

// Reloaded is the result of a reload.
type Reloaded struct {
	Applied      []string `json:"applied"`       // keys that have changed since they were last applied
	NeedsRestart []string `json:"needs_restart"` // keys that differ from what the service runs with
	Warnings     []string `json:"warnings"`
}

func newReloader(p place, log *slog.Logger) *reloader {
	r := &reloader{load: p.again, log: log, files: digests(p.cfg)}
	r.cfg.Store(&p.cfg)
	return r
}

// config returns what the service runs with. It does not wait for a reload in progress.
func (r *reloader) config() configs.Config { return *r.cfg.Load() }

// Reload loads the configuration, and applies each change that can be applied. It blocks until that is done, and until
// earlier reloads are. An error names all faults of the configuration; then nothing is applied.
func (r *reloader) Reload(ctx context.Context) (report Reloaded, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	tellSystemd(r.log, daemon.SdNotifyReloading+"\n"+daemon.SdNotifyMonotonicUsec())
	defer func() { tellSystemd(r.log, daemon.SdNotifyReady+"\nSTATUS="+r.service.status()) }()
	loaded, err := r.load()
	if err != nil {
		r.log.Error("the configuration cannot be used, and all stays as it is", "error", err)
		return report, err
	}
	report = Reloaded{Applied: []string{}, NeedsRestart: []string{}, Warnings: append([]string{}, loaded.Advice()...)}
	next := loaded.Config
	files := digests(next)
	changed := configs.Changed(r.config(), next)
	for _, key := range slices.Sorted(maps.Keys(files)) {
		if files[key] != r.files[key] && !slices.Contains(changed, key) {
			changed = append(changed, key)
		}
	}
	for _, l := range r.service.live() {
		mine := slices.DeleteFunc(slices.Clone(changed), func(key string) bool { return !l.has(key) })
		if len(mine) == 0 {
			continue
		}
		changed = slices.DeleteFunc(changed, l.has)
		merged := r.config()
		merged.Take(next, mine)
		if err := l.apply(ctx, merged); err != nil {
			report.Warnings = append(report.Warnings, fmt.Sprintf("%s: not applied: %v", strings.Join(mine, ", "), err))
			report.NeedsRestart = append(report.NeedsRestart, mine...)
			continue
		}
		r.cfg.Store(&merged)
		for _, key := range mine {
			if digest, ok := files[key]; ok {
				r.files[key] = digest
			}
		}
		report.Applied = append(report.Applied, mine...)
	}
	report.NeedsRestart = append(report.NeedsRestart, changed...)
	r.log.Info("the configuration is loaded again", "applied", report.Applied, "needs_restart", report.NeedsRestart)
	for _, warning := range report.Warnings {
		r.log.Warn("the configuration", "warning", warning)
	}
	return report, nil
}

func (l liveSettings) has(key string) bool {
	return configs.Among(key, l.keys) && key != "compat.immich.listen" // which needs a restart, other than the rest of its section
}

// maxNamed bounds a file that the configuration names, as far as it is looked at for changes.
const maxNamed = 64 << 20

// digests returns those of the files that a configuration names, by key. For a file that cannot be read it is that of the error.
func digests(c configs.Config) map[string][sha256.Size]byte {
	all := map[string][sha256.Size]byte{}
	for key, path := range c.Files() {
		text, err := safefile.ReadFile(path, maxNamed)
		if err != nil {
			text = []byte(err.Error())
		}
		all[key] = sha256.Sum256(text)
	}
	return all
}

// hangups returns a channel that has a value after a SIGHUP, which asks for a reload, and a function that ends this. A SIGHUP because
// the terminal of the process is gone calls stop instead.
func hangups(stop context.CancelFunc) (<-chan struct{}, func()) {
	asked := make(chan struct{}, 1)
	if signal.Ignored(syscall.SIGHUP) {
		return asked, func() {}
	}
	signals, had := make(chan os.Signal, 1), hasTerminal()
	signal.Ignore(syscall.SIGHUP) // it no longer ends the context of the command
	signal.Notify(signals, syscall.SIGHUP)
	go func() {
		for range signals {
			if had && !hasTerminal() {
				stop()
				continue
			}
			select {
			case asked <- struct{}{}:
			default: // a reload that has not begun will read the same files
			}
		}
	}()
	return asked, func() {
		signal.Ignore(syscall.SIGHUP) // the process ends anyhow
		signal.Stop(signals)
		close(signals)
	}
}

// hasTerminal says whether the process belongs to a terminal.
func hasTerminal() bool {
	f, err := os.Open("/dev/tty")
	if err == nil {
		f.Close()
	}
	return err == nil
}

// status is the line that systemctl status shows.
func (s *service) status() string {
	return cmp.Or(s.engine.Model(), "no model") + " at " + s.url()
}

// reloads reloads at every SIGHUP until ctx ends.
func (r *reloader) reloads(ctx context.Context, asked <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-asked:
			_, _ = r.Reload(ctx) // it is in the log
		}
	}
}
