package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// feedWatchdog tells systemd that the service lives, twice in the WatchdogSec of its unit, until ctx ends. While stuck
// returns an error it is silent, and systemd restarts the service; the log then has the stacks of all goroutines,
// because systemd ends it with SIGABRT. Without a watchdog in the unit it does nothing.
func feedWatchdog(ctx context.Context, log *slog.Logger, stuck func() error) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("systemd's watchdog is not fed", "error", err)
	}
	if limit < 2 {
		return
	}
	tick := time.NewTicker(limit / 2)
	defer tick.Stop()
	for was := false; ; {
		err := stuck()
		if err == nil {
			tellSystemd(log, daemon.SdNotifyWatchdog)
		} else if !was {
			log.Error("the service is stuck: systemd will restart it", "error", err, "watchdog", limit.String())
		}
		was = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// stuck says why only a restart helps. An idle service is well, and so is one without its device or with a stuck worker
// that another has replaced.
func (s *service) stuck() error {
	if stuck, _ := s.engine.Stuck(); stuck.All {
		return fmt.Errorf("all workers of the stage %s work on images whose deadline has passed", stuck.Stage)
	}
	if !s.server.Accepting() {
		return errors.New("connections are not accepted")
	}
	return nil
}

// tellSystemd sends state to systemd, if that has started the service.
func tellSystemd(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("cannot notify systemd", "error", err)
	}
}

const (
	releaseTime = 25 * time.Second // of the device, after server.shutdown_timeout
	// A start that takes longer than TimeoutStartSec of the unit, because a model is loaded from a slow card, tells systemd every
	// startTell that it goes on, up to startLimit.
	startTell  = 20 * time.Second
	startLimit = 10 * time.Minute
)

// extendTimeout asks systemd for this much time from now.
func extendTimeout(d time.Duration) string {
	return fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds())
}

// extendStart asks systemd for more time until ctx ends, at most for startLimit.
func extendStart(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(startTell)
	defer tick.Stop()
	for left := startLimit; left > 0; left -= startTell {
		tellSystemd(log, "STATUS=the model is being loaded\n"+extendTimeout(2*startTell))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
