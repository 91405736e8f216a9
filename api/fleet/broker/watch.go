package broker

import (
	"context"
	"fmt"
	"net"
	"time"

	"hailoclip/api/fleet/members"
)

// watch has the server know the members there are, until ctx ends: a new one may connect, and one that was removed is cut off,
// both within a second. A list that cannot be read changes nothing.
func (b *Broker) watch(ctx context.Context, version string) {
	dir := members.Dir(b.config.Dir)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := dir.Version()
		if now == version {
			continue
		}
		version = now
		options, err := b.options()
		if err == nil {
			err = b.server.ReloadOptions(options)
		}
		if err == nil {
			err = b.cutLeaves()
		}
		if err != nil {
			b.config.Log.Error("the list of nodes cannot be used; the former one stays in force", "error", err)
			continue
		}
		b.config.Log.Info("the list of nodes has changed", "nodes", len(options.Nkeys)-1)
	}
}

// cutLeaves closes the connections of all leaves, which the server leaves open when it gets to know other members. Those that still
// belong to the fleet are back within a second.
func (b *Broker) cutLeaves() error {
	leaves, err := b.server.Leafz(nil)
	if err != nil {
		return err
	}
	for _, l := range leaves.Leafs {
		if !l.IsSpoke { // else it is our connection to the main broker
			_ = b.server.DisconnectClientByID(l.ID) // it may have gone
		}
	}
	return nil
}

// remember writes down where nodes reach the broker, for "fleet add-node".
func (b *Broker) remember() error {
	return members.Dir(b.config.Dir).SetAddress(b.URL(), b.LeavesURL())
}

// ClusterAddress is where other brokers of the cluster reach this one; "": it stands alone.
func (b *Broker) ClusterAddress() string {
	a := b.server.ClusterAddr()
	if a == nil {
		return ""
	}
	return net.JoinHostPort(b.config.ClusterHost, fmt.Sprint(a.Port))
}
