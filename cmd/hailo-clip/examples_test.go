package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"hailoclip/api/client"
)

const examples = "../../configs/examples/"

// TestExamples runs each example against a service.
func TestExamples(t *testing.T) {
	t.Parallel()
	r := serve(t, t.TempDir(), "--model", "demo", "--backend", "cpu")
	c := must(client.New(r.url, client.Options{}))
	defer c.Close()
	pets := client.Definition{Labels: []client.Label{{Name: "cat"}, {Name: "dog"}, {Name: "pizza"}}}
	if _, _, err := c.PutPromptSet(t.Context(), "pets", pets, client.Condition{}); err != nil {
		t.Fatal(err)
	}
	if set, err := c.WaitPromptSet(t.Context(), "pets", nil); err != nil || set.State != client.SetReady {
		t.Fatal(set.State, err)
	}
	cat, pizza := samples+"cat.jpg", samples+"pizza.jpg"
	t.Run("frames.mjs", func(t *testing.T) {
		args := []string{examples + "frames.mjs", r.url, "pets", cat, cat, pizza, examples + "README.md"}
		node := needPrograms(t, "node")
		if exec.Command(node, "-e", "process.exit(typeof WebSocket === 'undefined')").Run() != nil {
			if args = append([]string{"--experimental-websocket"}, args...); exec.Command(node, args[0], "-e", "0").Run() != nil {
				t.Skip("node has no WebSocket")
			}
		}
		out, err := exec.Command(node, args...).CombinedOutput()
		for _, want := range []string{"cat.jpg: cat (", "pizza.jpg: pizza (", "enter cat\n", "exit cat\n", "enter pizza\n", "README.md: bad"} {
			if !strings.Contains(string(out), want) || err != nil {
				t.Fatalf("no %q: %v\n%s", want, err, out)
			}
		}
		args[len(args)-5] = "nobody"
		if out, err := exec.Command(node, args...).CombinedOutput(); err == nil || !strings.Contains(string(out), "closed with 1008 prompt_set_not_found") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("push.py, events.py", func(t *testing.T) { pythonExamples(t, c, r.url, cat, pizza) })
	t.Run("camera.sh", func(t *testing.T) {
		sh, v := needPrograms(t, "sh", "curl", "ffmpeg"), newVideo(t)
		run := exec.Command(sh, examples+"camera.sh", r.url, "film", "pets", v.file)
		run.Env = append(os.Environ(), "POLICY=queue")
		out, err := run.Output()
		_, list, _ := strings.Cut(string(out), "kept events:\n")
		var kept struct{ Events []client.Event }
		if err := errorOf(err, json.Unmarshal([]byte(list), &kept)); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var got []string
		for _, e := range kept.Events {
			if e.Kind != client.EventState {
				got = append(got, fmt.Sprintf("%d %s a photo of a %s", *e.Seq, e.Kind, e.Label))
			}
		}
		want := v.changes()
		slices.Sort(want)
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%q\nwant %q", got, want)
		}
		if out, err := exec.Command(sh, examples+"camera.sh", r.url, "film", "not a set", v.file).CombinedOutput(); err == nil || !strings.Contains(string(out), "invalid_request") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("node-red-classify.json, node-red-set.json", func(t *testing.T) { nodeRedFlows(t, r.url) })
	t.Run("node-red.json", func(t *testing.T) { nodeRedExample(t, c, r.url) })
	r.stop(t)
}

// pythonExamples listens with one program and pushes with the other.
func pythonExamples(t *testing.T, c *client.Client, url, cat, pizza string) {
	python := needPrograms(t, "python3")
	d := client.StreamDefinition{PromptSet: "pets", Policy: client.PolicyQueue, Events: &client.StreamEvents{MinFrames: 1}}
	if _, _, err := c.PutStream(t.Context(), "py", d); err != nil {
		t.Fatal(err)
	}
	listener := exec.Command(python, examples+"events.py", url, "py")
	out, err := listener.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := listener.StderrPipe()
	if err == nil {
		err = listener.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = listener.Process.Kill() // it listens for ever
		_ = listener.Wait()
	}()
	if line, err := bufio.NewReader(said).ReadString('\n'); line != "listening\n" {
		t.Fatal(line, err)
	}
	pushed, err := exec.Command(python, examples+"push.py", url, "py", "pets", cat, pizza, examples+"README.md").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(pushed), "3 frames: 2 answered, 0 superseded, 1 bad") && !strings.HasPrefix(string(pushed), "2 frames: 2 answered, 0 superseded, 0 bad") {
		t.Errorf("%v: %s", err, pushed)
	}
	var heard []string
	for lines := bufio.NewScanner(out); len(heard) < 3 && lines.Scan(); {
		_, text, _ := strings.Cut(lines.Text(), " ")
		heard = append(heard, text)
	}
	slices.Sort(heard)
	if len(heard) != 3 || !strings.HasPrefix(heard[0], "cat: begins (") || heard[1] != "cat: ends" || !strings.HasPrefix(heard[2], "pizza: begins (") {
		t.Errorf("heard %q", heard)
	}
	for _, args := range [][]string{{"push.py", url, "bad name", "pets", cat}, {"events.py", url, "nobody"}} {
		args[0] = examples + args[0]
		if out, err := exec.Command(python, args...).CombinedOutput(); err == nil || strings.Contains(string(out), "Traceback") || len(out) == 0 {
			t.Errorf("%q: %v: %s", args, err, out)
		}
	}
}

// redNode is a node of a Node-RED flow.
type redNode struct {
	ID, Type, Z, Name, Func string
	Wires                   [][]string
}

// redCode looks at a flow, and returns the code in it by node.
func redCode(t *testing.T, name string) (code map[string]string) {
	t.Helper()
	var nodes []redNode
	if err := json.Unmarshal(must(os.ReadFile(examples+name)), &nodes); err != nil {
		t.Fatal(err)
	}
	byID := map[string]redNode{}
	code = map[string]string{}
	for _, n := range nodes {
		if byID[n.ID] = n; n.Type == "function" {
			code[n.ID] = n.Func
		}
	}
	for _, n := range nodes {
		if n.Type != "tab" && byID[n.Z].Type != "tab" {
			t.Errorf("%s is on no tab", n.ID)
		}
		for _, id := range slices.Concat(n.Wires...) {
			if byID[id].ID == "" {
				t.Errorf("%s leads to %q, which there is not", n.ID, id)
			}
		}
	}
	return code
}

// nodeRedFlows runs the code of the flows that classify, and sends what it makes as the node "http request" does. "make conformance"
// has Node-RED itself do that.
func nodeRedFlows(t *testing.T, url string) {
	classify, set := redCode(t, "node-red-classify.json"), redCode(t, "node-red-set.json")
	node := needPrograms(t, "node")
	const script = `
const [classify, set, base, file] = [JSON.parse(process.argv[1]), JSON.parse(process.argv[2]), process.argv[3], process.argv[4]];
const image = require('fs').readFileSync(file), kept = {}, flow = {get: k => kept[k], set: (k, v) => { kept[k] = v; }}, node = {warn: w => console.log('warning', w)};
const run = (code, id, msg) => new Function('msg', 'flow', 'node', code[id])(msg, flow, node);
const ask = async msg => {
  let body = msg.payload, headers = {...msg.headers};
  if (headers['content-type'] === 'multipart/form-data') {
    body = new FormData();
    body.set('image', new Blob([msg.payload.image.value]), msg.payload.image.options.filename);
    delete headers['content-type'];
  } else if (body && !Buffer.isBuffer(body)) {
    body = JSON.stringify(body);
    headers['content-type'] = 'application/json';
  }
  const answer = await fetch(msg.url.replace('http://127.0.0.1:5000', base), {method: msg.method || 'POST', headers, body});
  return {...msg, statusCode: answer.status, payload: await answer.json()};
};
(async () => {
  for (const form of ['object', 'form', 'bytes']) {
    const {topic, payload, score} = run(classify, 'hailoclip-classify-each', await ask(run(classify, 'hailoclip-classify-' + form, {payload: image})));
    console.log(topic, payload, score > 0.5);
  }
  console.log((await ask(run(set, 'hailoclip-set-define', {}))).statusCode);
  console.log(run(set, 'hailoclip-set-changed', await ask(run(set, 'hailoclip-set-look', {}))));
  for (const label of ['open', 'open', 'closed']) {
    console.log(run(set, 'hailoclip-set-changed', {statusCode: 200, payload: {label, score: 0.9, source: 'porch'}}));
  }
})();`
	out, err := exec.Command(node, "-e", script, "--", string(must(json.Marshal(classify))), string(must(json.Marshal(set))), url, samples+"dog.jpg").CombinedOutput()
	const want = `object a photo of a dog true
form a photo of a dog true
bytes a photo of a dog true
201
warning There is no such source: "porch"
null
{ topic: 'porch', payload: 'open', score: 0.9 }
null
{ topic: 'porch', payload: 'closed', score: 0.9 }
`
	if err != nil || string(out) != want {
		t.Errorf("%v: %s", err, out)
	}
}

// nodeRedExample looks at the flow, runs the code in it with answers of the service, and has Node-RED load it where that is installed.
func nodeRedExample(t *testing.T, c *client.Client, url string) {
	code := redCode(t, "node-red.json")
	loadIntoNodeRed(t)
	node := needPrograms(t, "node")
	d := client.StreamDefinition{PromptSet: "pets", Policy: client.PolicyQueue, Events: &client.StreamEvents{MinFrames: 1, Store: true}}
	if _, _, err := c.PutStream(t.Context(), "gate", d); err != nil {
		t.Fatal(err)
	}
	push := c.Push(t.Context(), "gate", client.PushOptions{})
	for _, name := range []string{"cat.jpg", "pizza.jpg"} {
		if err := push.Send(must(os.ReadFile(samples + name))); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := push.Close(); err != nil || r.Answered != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	const script = `
const [code, base] = [JSON.parse(process.argv[1]), process.argv[2]];
const kept = {}, flow = {get: k => kept[k], set: (k, v) => { kept[k] = v; }}, node = {warn: console.error};
const run = (id, msg) => new Function('msg', 'flow', 'node', code[id])(msg, flow, node);
(async () => {
  for (let n = 0; n < 2; n++) {
    const ask = run('hailoclip-since', {});
    const answer = await fetch(ask.url.replace('http://127.0.0.1:5000', base), {method: ask.method, headers: ask.headers});
    const out = run('hailoclip-each', {statusCode: answer.status, payload: await answer.json()});
    console.log(JSON.stringify(out[0].map(m => [m.topic, m.payload])));
  }
  console.log(run('hailoclip-each', {statusCode: 404, payload: {error: 'none'}}));
})();`
	run := exec.Command(node, "-e", script, "--", string(must(json.Marshal(code))), url)
	var errs bytes.Buffer
	run.Stderr = &errs
	out, err := run.Output()
	lines := strings.Split(string(out), "\n")
	if err != nil || len(lines) < 3 || errs.String() != "none\n" || lines[1] != "[]" || lines[2] != "null" {
		t.Fatalf("%v: %s%s", err, out, errs.String())
	}
	for _, want := range []string{`["cat",true]`, `["cat",false]`, `["pizza",true]`} {
		if !strings.Contains(lines[0], want) {
			t.Errorf("no %s in %s", want, lines[0])
		}
	}
}

// loadIntoNodeRed starts Node-RED with the flow, where it is installed.
func loadIntoNodeRed(t *testing.T) {
	if _, err := exec.LookPath("node-red"); err != nil {
		t.Log(err)
		return
	}
	dir := t.TempDir()
	put(t, dir, map[string]string{"flow.json": string(must(os.ReadFile(examples + "node-red.json"))), "settings.js": "module.exports = {uiPort: 0, httpAdminRoot: false}"})
	c := exec.Command("node-red", "--userDir", dir, "--settings", filepath.Join(dir, "settings.js"), filepath.Join(dir, "flow.json"))
	var log bytes.Buffer
	var mu sync.Mutex
	c.Stdout, c.Stderr = lockedWriter{&mu, &log}, lockedWriter{&mu, &log}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	}()
	read := func() string { mu.Lock(); defer mu.Unlock(); return log.String() }
	until(t, "flows start", func() bool { return strings.Contains(read(), "Started flows") })
	if strings.Contains(read(), "missing types") {
		t.Error(read())
	}
}

// lockedWriter is for two goroutines.
type lockedWriter struct {
	mu *sync.Mutex
	to *bytes.Buffer
}

func (w lockedWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(b)
}
