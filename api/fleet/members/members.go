// Package members knows who belongs to a fleet: the nodes with their public keys, the certificates of the broker, and the
// credentials by which a node shows itself. It is what the broker and the command "fleet add-node" have in common.
package members

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nkeys"

	"hailoclip/hailo/safefile"
)

// Files in the folder of a broker. Only the two keys are secret; of a node's key the broker has the public half.
const (
	nodesFile   = "nodes.json"
	addressFile = "address" // where nodes reach the broker
	lockFile    = "trust.lock"
)

const (
	maxNodes     = 4096
	maxNodesFile = 4 << 20 // bytes
)

// Errors of Dir's methods.
var (
	ErrNoBroker = errors.New("no broker that asks for keys has been started with this folder")
	ErrExists   = errors.New("there is a node of this name")
	ErrUnknown  = errors.New("there is no node of this name")
)

// Name is what nodes, and all that becomes part of a subject, are called.
var Name = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// NameOf makes a name of a host's; other where nothing of that is left.
func NameOf(host, other string) string {
	host = strings.Map(func(r rune) rune {
		if r < 128 && Name.MatchString("a"+string(r)) {
			return r
		}
		return '-'
	}, host[:min(len(host), 64)])
	return cmp.Or(strings.TrimLeft(host, "-_"), other)
}

// Node is a member of the fleet.
type Node struct {
	Name  string    `json:"name"`
	Key   string    `json:"key"`            // public NKey of a user
	Leaf  bool      `json:"leaf,omitempty"` // it is a broker with nodes of its own
	Added time.Time `json:"added"`
}

// Dir is the folder in which a broker keeps whom it trusts. Processes may use it at the same time.
type Dir string

func (d Dir) file(name string) string { return filepath.Join(string(d), name) }

// Nodes are all members in the order of their names; none where the broker has not been told of any.
func (d Dir) Nodes() ([]Node, error) {
	data, err := safefile.ReadFile(d.file(nodesFile), maxNodesFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	nodes, err := parseNodes(data)
	if err != nil {
		err = fmt.Errorf("%s: %w", d.file(nodesFile), err)
	}
	return nodes, err
}

func parseNodes(data []byte) (nodes []Node, err error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&nodes); err != nil {
		return nil, err
	}
	if len(nodes) > maxNodes {
		return nil, fmt.Errorf("it has %d nodes, and at most %d are possible", len(nodes), maxNodes)
	}
	names, keys := map[string]bool{}, map[string]bool{}
	for _, n := range nodes {
		switch {
		case !Name.MatchString(n.Name):
			return nil, fmt.Errorf("%q is no name of a node: up to 64 letters, digits, - and _", n.Name)
		case !nkeys.IsValidPublicUserKey(n.Key):
			return nil, fmt.Errorf("the key of node %s is no public NKey of a user", n.Name)
		case names[n.Name] || keys[n.Key]:
			return nil, fmt.Errorf("node %s is there twice", n.Name)
		}
		names[n.Name], keys[n.Key] = true, true
	}
	slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return nodes, nil
}

// Add makes a node and its credentials, which are stored nowhere else. url is where the node reaches the broker; "": where the
// broker itself says. Errors: ErrExists, ErrNoBroker, and those of the files.
func (d Dir) Add(name string, leaf bool, url string) (Credentials, error) {
	if !Name.MatchString(name) {
		return Credentials{}, fmt.Errorf("%q is no name of a node: up to 64 letters, digits, - and _", name)
	}
	ca, err := safefile.ReadFile(d.file(caFile), maxCredentials)
	if errors.Is(err, fs.ErrNotExist) {
		return Credentials{}, fmt.Errorf("%s: %w", d, ErrNoBroker)
	}
	if err != nil {
		return Credentials{}, err
	}
	if url == "" {
		if url, err = d.Address(leaf); err != nil {
			return Credentials{}, err
		}
	}
	pair, err := nkeys.CreateUser()
	if err != nil {
		return Credentials{}, err
	}
	seed, err := pair.Seed()
	if err != nil {
		return Credentials{}, err
	}
	public, err := pair.PublicKey()
	if err != nil {
		return Credentials{}, err
	}
	c := Credentials{Node: name, URL: url, Seed: string(seed), CA: ca}
	if _, err := Parse(c.Text()); err != nil { // a wrong url
		return Credentials{}, err
	}
	return c, d.change(func(nodes []Node) ([]Node, error) {
		if slices.ContainsFunc(nodes, func(n Node) bool { return n.Name == name }) {
			return nil, fmt.Errorf("%s: %w", name, ErrExists)
		}
		if len(nodes) >= maxNodes {
			return nil, fmt.Errorf("the fleet has %d nodes, which is all that it may have", len(nodes))
		}
		return append(nodes, Node{name, public, leaf, time.Now().UTC().Truncate(time.Second)}), nil
	})
}

// Remove removes a node, whose connection a running broker then closes. Error: ErrUnknown.
func (d Dir) Remove(name string) error {
	return d.change(func(nodes []Node) ([]Node, error) {
		left := slices.DeleteFunc(slices.Clone(nodes), func(n Node) bool { return n.Name == name })
		if len(left) == len(nodes) {
			return nil, fmt.Errorf("%s: %w", name, ErrUnknown)
		}
		return left, nil
	})
}

// change replaces the list of nodes; others that want to wait.
func (d Dir) change(how func([]Node) ([]Node, error)) error {
	unlock, err := d.lock()
	if err != nil {
		return err
	}
	defer unlock()
	nodes, err := d.Nodes()
	if err != nil {
		return err
	}
	if nodes, err = how(nodes); err != nil {
		return err
	}
	data, err := json.MarshalIndent(nodes, "", "  ")
	if err != nil {
		return err
	}
	return safefile.Replace(d.file(nodesFile), bytes.NewReader(append(data, '\n')))
}

// lock waits for those who change the folder, for a few seconds.
func (d Dir) lock() (unlock func(), err error) {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		unlock, err = safefile.Lock(d.file(lockFile))
		if !errors.Is(err, safefile.ErrLocked) || time.Now().After(end) {
			return unlock, err
		}
	}
}

// SetAddress remembers where nodes reach the broker, and where leaves do; "" is nowhere.
func (d Dir) SetAddress(nodes, leaves string) error {
	return safefile.Replace(d.file(addressFile), strings.NewReader(nodes+"\n"+leaves+"\n"))
}

// Address is what SetAddress has remembered. Error: ErrNoBroker.
func (d Dir) Address(leaf bool) (string, error) {
	data, err := safefile.ReadFile(d.file(addressFile), 1<<10)
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("%s: %w", d, ErrNoBroker)
	}
	if err != nil {
		return "", err
	}
	nodes, leaves, _ := strings.Cut(string(data), "\n")
	if leaves = strings.TrimSpace(leaves); !leaf {
		return nodes, nil
	}
	if leaves == "" {
		return "", errors.New("the broker does not listen for leaves: start it with --leaves")
	}
	return leaves, nil
}

// Version changes when the list of nodes does.
func (d Dir) Version() string {
	info, err := os.Stat(d.file(nodesFile))
	if err != nil {
		return ""
	}
	return fmt.Sprint(info.ModTime().UnixNano(), info.Size())
}
