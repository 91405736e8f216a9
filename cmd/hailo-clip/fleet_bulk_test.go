package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestFleetBulk indexes through three nodes and prints what that cost and who did how much; it says nothing about speed.
func TestFleetBulk(t *testing.T) {
	n := 2000
	if fullFleet() {
		n = 20000
	}
	f := startFleet(t)
	before := make([]time.Duration, len(f.nodes))
	for i, node := range f.nodes {
		before[i] = node.cpu()
	}
	brokerBefore := f.broker.cpu()
	source := newManyImages(n, 256)
	took, in, out := f.index(source, func(int64) {})
	capacity, cpu, wire, encoded := 0., time.Duration(0), in+out, uint64(0)
	for _, node := range f.nodes {
		capacity += node.rate
	}
	brokerCPU := f.broker.cpu() - brokerBefore
	var table strings.Builder
	for i, node := range f.nodes {
		used := node.cpu() - before[i]
		s := node.status(t)
		share, fair := float64(s.Worker.Encoded)/float64(n), node.rate/capacity
		fmt.Fprintf(&table, "%-8s %6d images, %5.1f %% of all, its chip is %5.1f %% of the capacity (%+.1f %%); CPU %.2f ms an image\n", node.name,
			s.Worker.Encoded, 100*share, 100*fair, 100*(share/fair-1), ms(used, int(s.Worker.Encoded)))
		cpu += used
		encoded += s.Worker.Encoded
		wire += s.Broker.InBytes + s.Broker.OutBytes
	}
	if encoded < uint64(n) {
		t.Errorf("%d images were encoded", encoded)
	}
	t.Logf("%d JPEGs of 256 pixels, %d bytes each, in %v: %.1f images/s, %.1f %% of the chips' %.1f\n%sworkers %.2f ms, broker %.2f ms of CPU an image; %d bytes an image through the broker, both ways",
		n, len(source.image(0)), took.Round(time.Millisecond), float64(n)/took.Seconds(), 100*float64(n)/took.Seconds()/capacity, capacity,
		&table, ms(cpu, n), ms(brokerCPU, n), wire/uint64(n))
}

func ms(d time.Duration, n int) float64 { return d.Seconds() * 1e3 / float64(max(n, 1)) }

// TestFleetKilled kills a random node every five seconds, and the broker twice: each image has one right row in the end.
func TestFleetKilled(t *testing.T) {
	if !fullFleet() {
		t.Skip("HAILO_TEST_FLEET is not full: see make fleet-test")
	}
	n := 100000
	if some := os.Getenv("HAILO_TEST_FLEET_IMAGES"); some != "" {
		n = must(strconv.Atoi(some))
	}
	f := startFleet(t)
	done := make(chan struct{})
	var killing sync.WaitGroup
	kills := 0
	killing.Go(func() {
		tick := time.NewTicker(5 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			node := f.nodes[rand.IntN(len(f.nodes))]
			_ = node.cmd.Process.Kill()
			<-node.ended
			kills++
			node.running = f.startNode(node)
		}
	})
	brokers := 0
	took, _, _ := f.index(newManyImages(n, 64), func(rows int64) {
		if brokers < 2 && rows > int64(n*(brokers+1)/3) {
			brokers++
			_ = f.broker.cmd.Process.Kill()
			<-f.broker.ended
			f.startBroker()
		}
	})
	close(done)
	killing.Wait()
	t.Logf("%d images in %v (%.1f images/s) with %d nodes and %d brokers killed", n, took.Round(time.Second), float64(n)/took.Seconds(), kills, brokers)
	if brokers != 2 {
		t.Errorf("the broker was killed %d times", brokers)
	}
}

// TestFleetEmptied stops the broker in mid-run and takes what it keeps away: all is sent again that had no row.
func TestFleetEmptied(t *testing.T) {
	n := 2000
	if fullFleet() {
		n = 20000
	}
	f := startFleet(t)
	emptied := false
	took, _, _ := f.index(newManyImages(n, 64), func(rows int64) {
		if !emptied && rows > int64(n/3) {
			emptied = true
			_ = f.broker.cmd.Process.Kill()
			<-f.broker.ended
			f.empty()
			f.startBroker()
		}
	})
	t.Logf("%d images in %v, with a broker that lost all", n, took.Round(time.Second))
	if !emptied {
		t.Error("the broker was never emptied")
	}
}
