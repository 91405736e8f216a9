package main

import (
	"fmt"
	"log/slog"
	"os"
	"syscall"

	"hailoclip/api"
	"hailoclip/configs"
)

// otherFiles is how many descriptors are kept free for what is opened later and is no connection: a new worker of the device,
// new cache files, the events of streams, webhooks, MQTT, and for the source of each stream, and for each image that is fetched for
// a caller, its socket or the pipes of ffmpeg, and the sockets of what Immich's upstream answers. It is at most half of limit.
func otherFiles(maxStreams int, limit uint64) int {
	const besides, ofSource = 32, 4
	return int(min(uint64(besides+ofSource*(maxStreams+api.FetchesAtOnce)+api.ForwardsAtOnce), limit/2))
}

// fitDescriptors returns cfg.Server with max_connections, which counts for each of n sockets, lowered to what the limit of open
// files allows, and warns of that. It is an error if not even one connection fits. The Go runtime has raised the soft limit to the
// hard one.
func fitDescriptors(cfg configs.Config, n int, log *slog.Logger) (api.Config, error) {
	c := cfg.Server
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return c, nil //nolint:nilerr // it would only have been a warning
	}
	used, _ := os.ReadDir("/proc/self/fd") // none where there is no /proc
	return lowerConnections(c, n, limit.Cur, len(used)+otherFiles(cfg.Streams.MaxStreams, limit.Cur), log)
}

// lowerConnections is fitDescriptors where others of limit files are taken.
func lowerConnections(c api.Config, n int, limit uint64, others int, log *slog.Logger) (api.Config, error) {
	const remedy = "raise it (ulimit -n; LimitNOFILE in the systemd unit)"
	wanted := c.MaxConnections
	for uint64(n*c.Descriptors()+others) > limit {
		if c.MaxConnections--; c.MaxConnections < 1 {
			return c, fmt.Errorf("the process may open %d files, and the service needs %d for one connection: %s", limit, n*c.Descriptors()+others+1, remedy)
		}
	}
	if c.MaxConnections < wanted {
		log.Warn("fewer connections than server.max_connections: the process may not open so many files; "+remedy,
			"max_connections", wanted, "lowered_to", c.MaxConnections, "open_files_limit", limit)
	}
	return c, nil
}
