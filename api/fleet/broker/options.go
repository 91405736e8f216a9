package broker

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"hailoclip/api/fleet/members"
)

// MaxPayload is how many bytes a message may have; an image of "index --fleet" in one is at most 512 KiB.
const MaxPayload = 8 << 20

// leastCluster is how many brokers go on when one of them stops. Nodes want three copies of all in a cluster, which fewer cannot keep.
const leastCluster = 3

// complete fills in what is left open, and reports what does not fit together.
func (c *Config) complete() error {
	c.Host = cmp.Or(c.Host, "127.0.0.1")
	c.LeavesHost, c.ClusterHost = cmp.Or(c.LeavesHost, c.Host), cmp.Or(c.ClusterHost, c.Host)
	if c.SyncInterval == 0 {
		c.SyncInterval = DefaultSync
	}
	if c.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return err
		}
		c.Name = members.NameOf(host, "broker")
	}
	leaf := c.LeafOf != "" || c.Leaf != nil
	if c.Domain == "" && leaf {
		c.Domain = c.Name
	}
	c.Domain = cmp.Or(c.Domain, Main)
	for _, name := range []string{c.Name, c.Domain} {
		if !members.Name.MatchString(name) {
			return fmt.Errorf("%q is no name: up to 64 letters, digits, - and _", name)
		}
	}
	if leaf && c.Domain == Main {
		return fmt.Errorf("a leaf needs a domain, or a name, other than %q, which is that of the main broker", Main)
	}
	if leaf && c.LeafOf == "" {
		c.LeafOf = c.Leaf.URL
	}
	if len(c.Routes) > 0 && c.ClusterPort == 0 {
		return errors.New("routes to other brokers need an address on which they reach this one")
	}
	if brokers := slices.Compact(slices.Sorted(slices.Values(c.Routes))); c.ClusterPort != 0 && len(brokers) < leastCluster {
		return fmt.Errorf("a cluster of %d brokers, by its routes, is refused: have one broker or three, with the routes of all three, this one too. "+
			"Two stop when one of them does", max(len(brokers), 1))
	}
	listens := map[string]bool{c.Host: true, c.LeavesHost: c.LeavesPort != 0, c.ClusterHost: c.ClusterPort != 0}
	for host, used := range listens {
		if used && !c.Secure && !Loopback(host) {
			return fmt.Errorf("%s can be reached from other hosts, and a broker without TLS and keys must not be", host)
		}
	}
	return nil
}

// Loopback says that a host can be reached from this one alone.
func Loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// name is how nodes are told to reach this host.
func (b *Broker) name() string {
	if len(b.config.Advertise) > 0 {
		return b.config.Advertise[0]
	}
	if ip := net.ParseIP(b.config.Host); ip == nil || !ip.IsUnspecified() {
		return b.config.Host
	}
	host, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return host
}

// prepare makes what the server's options refer to, and returns what makes the options themselves, of the members there are then.
// The server compares those of a reload with the former ones: all but the members must be the same.
func (b *Broker) prepare() (func() (*server.Options, error), error) {
	c := b.config
	var clients, routes *tls.Config
	var nobody string // a key that no one has: a server that knows no keys asks for none
	if c.Secure {
		authority, err := members.Dir(c.Dir).Authority()
		if err != nil {
			return nil, err
		}
		certificate := authority.Renewing(append([]string{b.name()}, c.Advertise...))
		if _, err := certificate(); err != nil {
			return nil, err
		}
		clients = &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate() }}
		routes = clients.Clone()
		routes.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate() }
		routes.ClientAuth, routes.ClientCAs, routes.RootCAs = tls.RequireAndVerifyClientCert, authority.Pool(), authority.Pool()
		pair, err := nkeys.CreateUser()
		if err != nil {
			return nil, err
		}
		if nobody, err = pair.PublicKey(); err != nil {
			return nil, err
		}
	}
	cluster, err := c.cluster(routes)
	if err != nil {
		return nil, err
	}
	return func() (*server.Options, error) {
		o := &server.Options{
			ServerName: c.Name, Host: c.Host, Port: c.Port, JetStream: true, StoreDir: filepath.Clean(c.Dir), JetStreamDomain: c.Domain,
			JetStreamMaxStore: c.MaxStore, SyncInterval: max(c.SyncInterval, 0), SyncAlways: c.SyncInterval < 0,
			NoSigs: true, NoSystemAccount: false, MaxPayload: MaxPayload, MaxControlLine: 16 << 10, TLSConfig: clients, TLSTimeout: 5,
			AuthTimeout: 7, Cluster: cluster.ClusterOpts, Routes: cluster.routes,
		}
		if c.LeavesPort != 0 {
			o.LeafNode.Host, o.LeafNode.Port, o.LeafNode.TLSConfig, o.LeafNode.TLSTimeout = c.LeavesHost, c.LeavesPort, clients, 5
			o.LeafNode.AuthTimeout = 7
		}
		if len(c.Advertise) > 0 { // else who has connected is told the addresses of the host, which it may not reach
			o.ClientAdvertise = net.JoinHostPort(c.Advertise[0], "0") // 0: the port of the listener
			o.LeafNode.Advertise = o.ClientAdvertise
		}
		if c.LeafOf != "" {
			remote, err := c.remote()
			if err != nil {
				return nil, err
			}
			o.LeafNode.ReconnectInterval, o.LeafNode.Remotes = time.Second, []*server.RemoteLeafOpts{remote}
		}
		if !c.Secure {
			return o, nil
		}
		nodes, err := members.Dir(c.Dir).Nodes()
		if err != nil {
			return nil, err
		}
		o.Nkeys = append(users(nodes, c.Domain), &server.NkeyUser{Nkey: nobody, Permissions: permissions(nil, nil)})
		return o, nil
	}, nil
}

// users are the members as the server has them.
func users(nodes []members.Node, domain string) (all []*server.NkeyUser) {
	for _, n := range nodes {
		kind := "STANDARD"
		if n.Leaf {
			kind = "LEAFNODE"
		}
		all = append(all, &server.NkeyUser{
			Nkey: n.Key, Permissions: permissions(n.Permissions(domain)), AllowedConnectionTypes: map[string]struct{}{kind: {}},
		})
	}
	return all
}

func permissions(publish, subscribe []string) *server.Permissions {
	p := &server.Permissions{Publish: &server.SubjectPermission{Allow: publish}, Subscribe: &server.SubjectPermission{Allow: subscribe}}
	if publish == nil {
		p.Publish.Deny, p.Subscribe.Deny = []string{">"}, []string{">"}
		return p
	}
	p.Response = &server.ResponsePermission{MaxMsgs: 1, Expires: time.Minute}
	return p
}

// remote is the main broker, as a leaf reaches it.
func (c Config) remote() (*server.RemoteLeafOpts, error) {
	u, err := url.Parse(c.LeafOf)
	if err != nil || u.Scheme != "nats" && u.Scheme != "tls" || u.Hostname() == "" || u.Port() == "" || u.User != nil {
		return nil, errors.New("the main broker is not given as tls://host:port or nats://host:port, without a password")
	}
	r := &server.RemoteLeafOpts{URLs: []*url.URL{u}, TLS: u.Scheme == "tls"}
	if c.Leaf != nil {
		if u.Scheme != "tls" {
			return nil, errors.New("a main broker that asks for a key is reached by tls:// only")
		}
		r.Nkey, r.TLSConfig, r.TLSTimeout = c.Leaf.Seed, c.Leaf.TLS(), 5
		r.TLSConfig.ServerName = u.Hostname()
	}
	return r, nil
}

type cluster struct {
	server.ClusterOpts
	routes []*url.URL
}

func (c Config) cluster(routes *tls.Config) (made cluster, err error) {
	if c.ClusterPort == 0 {
		return made, nil
	}
	made.ClusterOpts = server.ClusterOpts{Name: "hailo-clip-" + c.Domain, Host: c.ClusterHost, Port: c.ClusterPort, TLSConfig: routes, TLSTimeout: 5}
	for _, address := range c.Routes {
		u, err := url.Parse("nats://" + address)
		if err != nil || u.Hostname() == "" || u.Port() == "" || u.User != nil {
			return made, fmt.Errorf("%q is no broker's host:port", address)
		}
		made.routes = append(made.routes, u)
	}
	return made, nil
}
