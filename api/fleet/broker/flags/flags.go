// Package flags has the flags of a broker, which are those of "hailo-clip fleet serve" and of hailo-clip-fleet alike.
package flags

import (
	"fmt"
	"net"
	"strconv"
	"time"
)

// Serve are the flags of a broker.
type Serve struct {
	Listen       string   `default:"127.0.0.1:4222" placeholder:"ADDR" help:"Address and port for nodes; beyond loopback with TLS and keys. Port 0: any free one."`
	Store        string   `placeholder:"DIR" help:"Folder of streams, certificates and the list of nodes (default: fleet in the state folder)."`
	MaxStore     string   `placeholder:"SIZE" help:"Bytes of streams at most, such as 20G (default: three quarters of what is free)."`
	SyncInterval string   `default:"10s" placeholder:"TIME" help:"A power cut can lose what was stored in this time; always: nothing, at some 17 images/s on an SD card."`
	Secure       bool     `help:"Ask for TLS and keys on loopback, too."`
	Advertise    []string `placeholder:"HOST" help:"Name or address of this host for nodes, and in the certificate; may be repeated (default: the host's name)."`
	Name         string   `placeholder:"NAME" help:"Name of this broker (default: the host's)."`
	Leaves       string   `placeholder:"ADDR" help:"Address and port for brokers of other sites (default: none)."`
	LeafOf       string   `placeholder:"URL" help:"Be the broker of another site: where the main broker listens for leaves (default: what --credentials say)."`
	Credentials  string   `placeholder:"FILE" help:"What \"fleet add-node --leaf\" has written, for a leaf."`
	Domain       string   `placeholder:"NAME" help:"JetStream domain (default: hub; of a leaf its name)."`
	Cluster      string   `placeholder:"ADDR" help:"Address and port for the other brokers of a cluster of three (default: none)."`
	Routes       []string `placeholder:"HOST:PORT" help:"The three brokers of the cluster, this one too; may be repeated."`
	LogLevel     string   `enum:"debug,info,warning,error" default:"info" placeholder:"LEVEL" help:"debug, info, warning or error."`
	LogFormat    string   `enum:"auto,json,text" default:"auto" placeholder:"FORMAT" help:"auto, json or text."`
}

// Args are the flags again, for the program that they are meant for.
func (s Serve) Args() (args []string) {
	add := func(flag, value string) {
		if value != "" {
			args = append(args, "--"+flag+"="+value)
		}
	}
	add("listen", s.Listen)
	add("store", s.Store)
	add("max-store", s.MaxStore)
	add("sync-interval", s.SyncInterval)
	add("name", s.Name)
	add("leaves", s.Leaves)
	add("leaf-of", s.LeafOf)
	add("credentials", s.Credentials)
	add("domain", s.Domain)
	add("cluster", s.Cluster)
	add("log-level", s.LogLevel)
	add("log-format", s.LogFormat)
	for _, host := range s.Advertise {
		add("advertise", host)
	}
	for _, address := range s.Routes {
		add("routes", address)
	}
	if s.Secure {
		args = append(args, "--secure")
	}
	return args
}

// Sync is the interval; below 0 is with every message.
func (s Serve) Sync() (time.Duration, error) {
	if s.SyncInterval == "always" {
		return -1, nil
	}
	d, err := time.ParseDuration(s.SyncInterval)
	if err != nil || d < 10*time.Millisecond || d > time.Hour {
		return 0, fmt.Errorf("--sync-interval %s: write always, or a time from 10ms to 1h", s.SyncInterval)
	}
	return d, nil
}

// Bytes is the size of the store; 0: not given.
func (s Serve) Bytes() (int64, error) {
	if s.MaxStore == "" {
		return 0, nil
	}
	number, unit := s.MaxStore, int64(1)
	if last := number[len(number)-1]; last < '0' || last > '9' {
		unit = map[byte]int64{'M': 1 << 20, 'G': 1 << 30, 'T': 1 << 40}[last]
		number = number[:len(number)-1]
	}
	n, err := strconv.ParseInt(number, 10, 32)
	if unit == 1 {
		n, err = strconv.ParseInt(number, 10, 64)
	}
	if err != nil || unit == 0 || n*unit < 1<<30 || n > 1<<50/unit {
		return 0, fmt.Errorf("--max-store %s: write bytes, or a number with M, G or T; at least 1G", s.MaxStore)
	}
	return n * unit, nil
}

// Address splits host:port for a server to which port 0 is any free one. "" is no address: port 0.
func Address(flag, address string) (host string, port int, err error) {
	if address == "" {
		return "", 0, nil
	}
	host, digits, err := net.SplitHostPort(address)
	if err == nil {
		port, err = strconv.Atoi(digits)
	}
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%s %s: write host:port", flag, address)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	if port == 0 {
		port = -1
	}
	return host, port, nil
}
