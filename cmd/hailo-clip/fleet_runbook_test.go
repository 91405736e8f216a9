package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"

	"hailoclip/api/fleet"
)

// runbook is configs/docs/fleet.md: its sections, and the commands in them.
type runbook struct {
	t        *testing.T
	bin      string // folder of the programs
	etc      string // stands for /etc/hailo
	sections map[string]string
	blocks   map[string][]docBlock // by section
	left     map[int]bool          // lines of blocks that nobody has run
}

func openRunbook(t *testing.T) *runbook {
	t.Helper()
	b := &runbook{t: t, bin: builtPrograms(t), etc: t.TempDir() + "/", sections: map[string]string{}, blocks: map[string][]docBlock{}, left: map[int]bool{}}
	page := string(must(os.ReadFile(docs + "fleet.md")))
	lines, title := strings.Split(page, "\n"), ""
	titles := make([]string, len(lines)+1)
	for i, line := range lines {
		if h, ok := strings.CutPrefix(line, "## "); ok {
			title = h
		}
		b.sections[title] += line + "\n"
		titles[i+1] = title
	}
	for _, block := range docBlocks(t, "fleet.md", page) {
		b.blocks[titles[block.line]] = append(b.blocks[titles[block.line]], block)
		b.left[block.line] = true
	}
	return b
}

// commands are those of the n-th block of a section, one a line.
func (b *runbook) commands(section string, n int) []string {
	b.t.Helper()
	if len(b.blocks[section]) <= n {
		b.t.Fatalf("fleet.md: section %q has no block %d", section, n)
	}
	delete(b.left, b.blocks[section][n].line)
	return strings.Split(strings.TrimSpace(b.blocks[section][n].text), "\n")
}

// says fails the test unless the section has these words.
func (b *runbook) says(section string, words ...string) {
	b.t.Helper()
	for _, w := range words {
		if !strings.Contains(strings.Join(strings.Fields(b.sections[section]), " "), w) {
			b.t.Errorf("fleet.md, %s: no %q", section, w)
		}
	}
}

// fleetHost is a machine of the story: a folder that commands run in, and a state folder of its own.
type fleetHost struct {
	*runbook
	name, dir, state string
	service          *running
	places           *strings.Replacer
}

// host is a new one, on which pairs stand for what the page has.
func (b *runbook) host(name string, pairs ...string) *fleetHost {
	pairs = append(pairs, "broker.example.org", "127.0.0.1", "/etc/hailo/", b.etc)
	return &fleetHost{runbook: b, name: name, dir: b.t.TempDir(), state: b.t.TempDir(), places: strings.NewReplacer(pairs...)}
}

func (h *fleetHost) command(script string) *exec.Cmd {
	c := exec.Command("bash", "-eu", "-c", h.places.Replace(script))
	c.Dir = h.dir
	c.Env = append(os.Environ(), "PATH="+h.bin+":"+os.Getenv("PATH"), "HAILO_CLIP_STATE_DIR="+h.state, "HAILO_CLIP_ADMIN_LISTEN=127.0.0.1:0",
		"HAILO_CLIP_LOGGING_REQUESTS=0", "HAILO_CLIP_SERVER_HOST=127.0.0.1")
	if h.service != nil {
		c.Env = append(c.Env, "HAILO_CLIP_SERVER_PORT="+h.service.url[strings.LastIndexByte(h.service.url, ':')+1:])
	}
	return c
}

// does runs commands that end well.
func (h *fleetHost) does(commands ...string) (said string) {
	h.t.Helper()
	for _, line := range commands {
		r := runProgram(h.t, h.command(line))
		r.expect(h.t, exitOK)
		said += r.stdout + r.stderr
	}
	if h.t.Failed() {
		h.t.Fatal(h.name, commands)
	}
	return said
}

// begins runs a command that goes on, and waits until it serves.
func (h *fleetHost) begins(line string) *running {
	h.t.Helper()
	r := start(h.t, h.command("exec "+line))
	r.url = r.urlOf(h.t, "serving")
	return r
}

// serves starts the service with a configuration.
func (h *fleetHost) serves(config string) {
	h.t.Helper()
	put(h.t, h.dir, map[string]string{"my.yaml": h.places.Replace(config)})
	h.service = nil // it has any port
	h.service = h.begins("hailo-clip serve --config my.yaml --port 0 --backend sim --model demo")
}

// joins has the file of a node, as the page says where, and starts the service by it.
func (h *fleetHost) joins(from *fleetHost) {
	h.t.Helper()
	from.says("Add a node", "`fleet.credentials: /etc/hailo/kitchen.creds`", "chmod 600")
	h.takes(from)
	h.serves(h.joined())
}

// joined is the configuration of a node, as the page has it.
func (h *fleetHost) joined() string {
	m := regexp.MustCompile("`fleet\\.credentials: (.*)`").FindStringSubmatch(h.sections["Add a node"])
	return "fleet:\n  credentials: " + strings.ReplaceAll(m[1], "kitchen", h.name) + "\n"
}

// takes copies the file of a node, which is removed where it was made.
func (h *fleetHost) takes(from *fleetHost) {
	h.t.Helper()
	h.does(fmt.Sprintf("mkdir -p /etc/hailo/ && mv %s/%s.creds /etc/hailo/", from.dir, h.name))
}

// status waits until "fleet status" says all of these.
func (h *fleetHost) status(says ...string) {
	h.t.Helper()
	command := h.commands("Add a node", 1)[0]
	until(h.t, fmt.Sprintf("%s: status with %q", h.name, says), func() bool {
		r := runProgram(h.t, h.command(command))
		all := strings.Join(strings.Fields(r.stdout), " ")
		for _, s := range says {
			if !strings.Contains(all, s) {
				return false
			}
		}
		return true
	})
}

// works waits until the service waits for images of indexes.
func (h *fleetHost) works() {
	h.t.Helper()
	until(h.t, h.name+" waits for images", func() bool {
		for _, q := range (&fleetNode{running: h.service}).status(h.t).Queues {
			if q.Stream == fleet.BulkStream {
				return q.Waiting > 0
			}
		}
		return false
	})
}

// answers: the service does the work of its own clients.
func (h *fleetHost) answers() {
	h.t.Helper()
	h.service.mustPost(h.t, "/v1/embed/image", map[string]any{"image": sample(h.t, "cat.jpg")})
}

// indexing is "index --fleet" at work.
type indexing struct {
	*running
	source *manyImages
	rows   string
}

// indexes begins to index so many images, by the broker of a configuration.
func (h *fleetHost) indexes(config string, n int) *indexing {
	h.t.Helper()
	x := &indexing{source: newManyImages(n, 64), rows: filepath.Join(h.t.TempDir(), "vectors.ndjson")}
	images := h.t.TempDir()
	for i := range n {
		if err := os.WriteFile(filepath.Join(images, fmt.Sprint(i, ".jpg")), x.source.image(i), 0o644); err != nil {
			h.t.Fatal(err)
		}
	}
	put(h.t, h.dir, map[string]string{"index.yaml": h.places.Replace(config)})
	x.running = start(h.t, h.command("exec hailo-clip index "+images+" --config index.yaml --fleet --out "+x.rows))
	return x
}

// reaches waits until so many rows are stored, and fails the test where it has ended by then.
func (x *indexing) reaches(t *testing.T, rows int) {
	t.Helper()
	until(t, fmt.Sprint(rows, " rows"), func() bool {
		text, _ := os.ReadFile(x.rows)
		return strings.Count(string(text), "\n") >= rows
	})
	select {
	case <-x.ended:
		t.Fatal("it ended before anything was lost")
	default:
	}
}

// completes waits for its end, and checks each row.
func (x *indexing) completes(t *testing.T, r referee) {
	t.Helper()
	<-x.ended
	if code := x.cmd.ProcessState.ExitCode(); code != exitOK {
		t.Fatalf("exit code %d", code)
	}
	file := must(os.Open(x.rows))
	defer file.Close()
	must(r.check(t.Context(), x.source, file)).fails(t, x.source.n)
}

// TestFleetRunbook does what configs/docs/fleet.md says, with the programs themselves and the commands as they stand there, in the order of
// the page: "make fleet-runbook". Ports, folders and names of hosts are others.
func TestFleetRunbook(t *testing.T) {
	if os.Getenv("HAILO_TEST_FLEET_RUNBOOK") == "" {
		t.Skip("HAILO_TEST_FLEET_RUNBOOK is not set: make fleet-runbook")
	}
	b, r := openRunbook(t), newReferee(t)

	// Start a broker
	try := b.host("try", "fleet serve", "fleet serve --listen 127.0.0.1:0")
	alone := try.begins(b.commands("Start a broker", 0)[0])
	must(nats.Connect(alone.url)).Close()
	alone.stop(t)
	hub := b.host("hub", "0.0.0.0:4222", "0.0.0.0:"+freePort(t), "0.0.0.0:7422", "0.0.0.0:"+freePort(t))
	serve := b.commands("Start a broker", 1)[0]
	broker := hub.begins(serve)

	// Add a node
	add := b.commands("Add a node", 0)
	if said := hub.does(add...); !strings.Contains(said, "kitchen") || !strings.Contains(said, " node ") {
		t.Fatal(said)
	}
	for _, name := range []string{"porch", "index", "hall"} {
		hub.does(strings.ReplaceAll(add[0], "kitchen", name))
	}
	kitchen, porch, index := b.host("kitchen"), b.host("porch"), b.host("index")
	kitchen.joins(hub)
	porch.joins(hub)
	index.takes(hub)
	kitchen.status("kitchen * healthy", "porch healthy", "TLS")
	kitchen.works()

	// Lose a node: what it had comes back.
	x := index.indexes(index.joined(), 3000)
	x.reaches(t, 300)
	porch.service.end(t, syscall.SIGKILL, -1)
	x.completes(t, r)
	kitchen.answers()
	porch.serves(porch.joined())
	b.says("Lose a node", "within a second", "To let it in again, add it again; the old file stays worthless")
	hub.does(b.commands("Lose a node", 0)...)
	porch.status("porch * healthy", "kitchen silent")
	kitchen.answers()
	old := kitchen.joined()
	hub.does(add[0])
	kitchen.service.stop(t)
	kitchen.serves(old)
	until(t, "the old file is refused", func() bool { return strings.Contains(kitchen.service.logged(), "Authorization Violation") })
	kitchen.service.stop(t)
	kitchen.joins(hub)
	porch.status("kitchen healthy")

	// Lose the broker
	b.says("Lose the broker", "Services go on alone and say so once in their log", "`index --fleet` waits", "back up `ca.pem`, `ca-key.pem` and `nodes.json`")
	kitchen.definesPets()
	porch.service.hasPets(t)
	x = index.indexes(index.joined(), 3001)
	x.reaches(t, 300)
	broker.end(t, syscall.SIGKILL, -1)
	until(t, "the service says that it is alone", func() bool { return strings.Contains(kitchen.service.logged(), "works alone") })
	kitchen.answers()
	broker = hub.begins(serve)
	x.completes(t, r)
	if n := strings.Count(kitchen.service.logged(), "works alone"); n > 3 {
		t.Errorf("it said %d times that it is alone", n)
	}
	broker.stop(t)
	hub.does(`cd "$HAILO_CLIP_STATE_DIR"/fleet && find . -mindepth 1 ! -name ca.pem ! -name ca-key.pem ! -name nodes.json -delete`)
	broker = hub.begins(serve)
	hall := b.host("hall")
	hall.joins(hub)
	hall.service.hasPets(t) // which the others have given back
	hall.works()
	index.indexes(index.joined(), 100).completes(t, r)

	b.threeBrokers(r, add)

	// Another site
	site := b.commands("Another site", 0)
	broker.stop(t)
	broker = hub.begins(site[0] + " --advertise 127.0.0.1")
	hub.does(site[1])
	north := b.host("north", "fleet serve", "fleet serve --listen 127.0.0.1:0", "--credentials north.creds", "--credentials "+b.etc+"north.creds")
	north.takes(hub)
	leaf := north.begins(site[2])
	attic := b.host("attic")
	attic.serves("fleet: {url: '" + leaf.url + "', node: attic, site: north}\n")
	attic.status("attic * north healthy", "kitchen healthy", "CLIP_BULK 0")
	attic.works()
	attic.indexes("fleet: {url: '"+leaf.url+"', node: far}\n", 100).completes(t, r)

	// Upgrade: the broker first, then one node after the other.
	b.says("Upgrade", "The broker first, then one node after the other", "Stop the broker with SIGTERM")
	x = index.indexes(index.joined(), 3002)
	x.reaches(t, 300)
	broker.stop(t)
	broker = hub.begins(site[0] + " --advertise 127.0.0.1")
	for _, node := range []*fleetHost{kitchen, porch, hall} {
		node.service.stop(t)
		node.serves(node.joined())
	}
	x.completes(t, r)

	// Remove
	b.says("Remove", "Take `fleet` out of the configuration of each service and restart it")
	kitchen.service.stop(t)
	kitchen.serves("")
	runProgram(t, kitchen.command("hailo-clip fleet status")).expect(t, exitFailed, "in no fleet")
	broker.stop(t)
	for line := range b.left {
		t.Errorf("fleet.md:%d: these commands are not run", line)
	}
}

// threeBrokers follows the section of that name.
func (b *runbook) threeBrokers(r referee, add []string) {
	t := b.t
	b.says("Three brokers", "copy `ca.pem` and `ca-key.pem` of the first into the folders of the others before they start",
		"After each `add-node` and `remove-node` copy `nodes.json`", "all three addresses in `fleet.url`, separated by commas")
	serve := b.commands("Three brokers", 0)[0]
	names := []string{"a", "b", "c"}
	var routes []string
	for _, name := range names {
		routes = append(routes, name+".example:6222", "127.0.0.1:"+freePort(t))
	}
	var hosts []*fleetHost
	var brokers []*running
	for i, name := range names {
		pairs := append([]string{"fleet serve", "fleet serve --advertise 127.0.0.1 --max-store 1G --name " + name, "0.0.0.0:4222", "0.0.0.0:0", "0.0.0.0:6222", routes[2*i+1]}, routes...)
		h := b.host(name, pairs...)
		if i > 0 {
			put(t, h.state, map[string]string{"fleet/x": ""})
			h.does("cp " + hosts[0].state + "/fleet/ca*.pem " + h.state + "/fleet/")
		}
		hosts, brokers = append(hosts, h), append(brokers, start(t, h.command("exec "+serve)))
		if i == 0 {
			until(t, "the authority is made", func() bool {
				return isFile(h.state+"/fleet/ca.pem") && isFile(h.state+"/fleet/ca-key.pem")
			})
		}
	}
	var urls []string
	for _, broker := range brokers {
		urls = append(urls, broker.urlOf(t, "serving"))
	}
	first := hosts[0]
	for _, name := range []string{"shed", "counter"} {
		first.does(strings.ReplaceAll(add[0], "kitchen", name))
	}
	for _, h := range hosts[1:] {
		h.does("cp " + first.state + "/fleet/nodes.json " + h.state + "/fleet/")
	}
	shed, counter := b.host("shed"), b.host("counter")
	shed.takes(first)
	counter.takes(first)
	address := "  url: " + strings.Join(urls, ",") + "\n"
	shed.serves(shed.joined() + address)
	shed.status("shed * healthy")
	shed.works()
	x := counter.indexes(counter.joined()+address, 1500)
	x.reaches(t, 200)
	brokers[1].end(t, syscall.SIGKILL, -1)
	x.completes(t, r)
	shed.service.stop(t)
	brokers[0].stop(t)
	brokers[2].stop(t)
}

func (h *fleetHost) definesPets() {
	h.t.Helper()
	request := must(http.NewRequest(http.MethodPut, h.service.url+"/v1/prompt-sets/pets", strings.NewReader(`{"labels": [{"name": "cat"}, {"name": "dog"}]}`)))
	request.Header.Set("Content-Type", "application/json")
	if a := must(read(http.DefaultClient.Do(request))); a.status >= 300 {
		h.t.Fatal(a.status, a.raw)
	}
}

// hasPets waits until the service has that prompt set.
func (r *running) hasPets(t *testing.T) {
	t.Helper()
	until(t, "the prompt set", func() bool { return r.get(t, "/v1/prompt-sets/pets").status == http.StatusOK })
}
