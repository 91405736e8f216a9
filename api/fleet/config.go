package fleet

import (
	"net/url"
	"strconv"
	"strings"

	"hailoclip/api/fleet/members"
)

// Config is the section "fleet".
type Config struct {
	// URL of the broker, several separated by commas: nats://host:4222 or tls://host:4222; "": that of the credentials, and
	// without them there is no fleet.
	URL         string `yaml:"url"`
	Node        string `yaml:"node"`        // name of this node, unlike that of any other; "": the credentials' or the host's
	Site        string `yaml:"site"`        // where the node is; nodes of other sites get no interactive requests. "": everywhere the same
	Credentials string `yaml:"credentials"` // file with the NKey and the certificate authority, as "fleet add-node" writes it; "": none
	Domain      string `yaml:"domain"`      // JetStream domain of the main broker, also for nodes at a leaf; "": a server that has none
	Spill       bool   `yaml:"spill"`       // hands interactive requests to other nodes, and takes theirs
	Bulk        bool   `yaml:"bulk"`        // encodes images that are indexed through the broker
	Share       bool   `yaml:"share"`       // prompt sets and vectors of texts are those of the fleet
	Cameras     bool   `yaml:"cameras"`     // takes streams that the fleet places
}

// name is what nodes, and all that becomes part of a subject, are called.
var name = members.Name

// On says that the process belongs to a fleet.
func (c Config) On() bool { return c.URL != "" || c.Credentials != "" }

// Check reports what the bounds of the fields cannot say.
func (c Config) Check(fault func(field, format string, args ...any)) {
	for address := range strings.SplitSeq(c.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(address))
		if c.URL != "" && (err != nil || u.Scheme != "nats" && u.Scheme != "tls" || u.Host == "" || u.User != nil) {
			fault("url", "%s is out of bounds: nats://host:4222 or tls://host:4222, several separated by commas, without a password", shown(c.URL))
			break
		}
	}
	for field, value := range map[string]string{"node": c.Node, "site": c.Site, "domain": c.Domain} {
		if value != "" && !name.MatchString(value) {
			fault(field, "%q is out of bounds: up to 64 letters, digits, - and _", value)
		}
	}
}

// shown is an address for a message, which may be read by others: without what may be a password.
func shown(addresses string) string {
	if strings.Contains(addresses, "@") {
		return "an address with a user or a password"
	}
	return strconv.Quote(addresses)
}
