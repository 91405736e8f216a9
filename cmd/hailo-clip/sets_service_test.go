package main

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hailoclip/hailo/demo"
)

// petsYAML is a set that the demo model can tell apart.
const petsYAML = "labels:\n- name: cat\n- name: dog\n- name: pizza\n  prompts: [a photo of a pizza]\n"

// labelledSamples is a folder with the demo's images of some labels, and with one of something else.
func labelledSamples(t *testing.T, background string, labels ...string) string {
	t.Helper()
	files := map[string]string{}
	for _, s := range must(demo.Samples()) {
		for _, label := range labels {
			if s.Label == label {
				files[label+"/"+s.File] = string(s.JPEG)
			}
		}
		if s.Label == background {
			files["background/"+s.File] = string(s.JPEG)
		}
	}
	dir := t.TempDir()
	put(t, dir, files)
	return dir
}

// TestPromptSetCommands has the commands one after the other: by themselves, and with a service that has the state folder.
func TestPromptSetCommands(t *testing.T) {
	t.Parallel()
	needONNX(t)
	for _, how := range []string{"alone", "beside a service"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			state, dir := t.TempDir(), t.TempDir()
			env := []string{"HAILO_CLIP_CLIP_MODEL=demo", "HAILO_CLIP_CLIP_BACKEND=cpu"}
			if how == "alone" {
				env = append(env, "HAILO_CLIP_SERVER_HOST=127.0.0.1", "HAILO_CLIP_SERVER_PORT=1") // where nobody serves
			} else {
				r := serve(t, state, "--model", "demo", "--backend", "cpu")
				defer func() {
					if text := r.get(t, "/v1/prompt-sets").raw; !strings.Contains(text, `"pets"`) {
						t.Errorf("the service has %s", text)
					}
					r.stop(t)
				}()
				env = append(env, "HAILO_CLIP_SERVER_HOST=127.0.0.1", "HAILO_CLIP_SERVER_PORT="+must(url.Parse(r.url)).Port())
			}
			files := map[string]string{"pets.yaml": petsYAML, "broken.yaml": "labels: [{nam: a}]", "more.yaml": petsYAML + "- name: guitar\n"}
			put(t, dir, files)
			run := func(stdin string, args ...string) result {
				t.Helper()
				for i, arg := range args {
					if files[arg] != "" || strings.HasPrefix(arg, "out.") {
						args[i] = filepath.Join(dir, arg)
					}
				}
				c := command(state, args...)
				c.Env, c.Stdin = append(c.Env, env...), strings.NewReader(stdin)
				return runProgram(t, c)
			}
			run("", "prompt-sets", "list").expect(t, exitOK, "prompt set labels state")
			run("", "prompt-sets", "put", "broken.yaml").expect(t, exitUsage, `broken.yaml: line 1: labels[0].nam is no key`)
			run("", "prompt-sets", "put", "pets.yaml").expect(t, exitOK, "pets: made, 3 labels")
			run("", "prompt-sets", "put", "pets.yaml").expect(t, exitOK, "pets: unchanged, 3 labels")
			run("", "prompt-sets", "put", "more.yaml", "--name", "pets", "--new").expect(t, exitFailed, "412")
			listed := run("", "prompt-sets", "list")
			listed.expect(t, exitOK, "pets 3 ready")
			version := strings.Fields(listed.stdout[strings.Index(listed.stdout, "pets"):])[3]
			run("", "prompt-sets", "put", "pets.yaml", "--if-match", version).expect(t, exitOK, "pets: unchanged")
			run("", "prompt-sets", "put", "pets.yaml", "--if-match", "0"+version[1:]+"x").expect(t, exitFailed, "412")
			run("", "prompt-sets", "list", "--json").expect(t, exitOK, `"name":"pets","labels":3,"state":"ready"`)
			run("", "prompt-sets", "show", "dogs").expect(t, exitFailed, "prompt_set_not_found")
			shown := run("", "prompt-sets", "show", "pets")
			shown.expect(t, exitOK, "# pets: ready, ", "- name: cat", "- a photo of a pizza")
			run(shown.stdout, "prompt-sets", "put", "-", "--name", "pets").expect(t, exitOK, "pets: unchanged")
			asJSON := run("", "prompt-sets", "show", "pets", "--format", "json")
			run(asJSON.stdout, "prompt-sets", "put", "-", "--name", "copy", "--format", "json").expect(t, exitOK, "copy: made, 3 labels")

			run("", "classify", samples+"cat.jpg", samples+"pizza.jpg", "--prompt-set", "pets", "-k", "1").expect(t, exitOK, "cat.jpg cat ", "pizza.jpg pizza ")
			run("", "classify", samples+"cat.jpg", samples+"index.json", "--prompt-set", "pets", "--json").expect(t, exitFailed,
				`"prompt_set":"pets"`, `"matched":true`, `"classifications":[{"text":"cat"`, "index.json", `"error":"Not an image`)
			run("", "classify", samples+"cat.jpg", "--prompt-set", "dogs").expect(t, exitFailed, "prompt_set_not_found")

			run("", "prompt-sets", "add", "pets", "cat", samples+"cat.jpg").expect(t, exitOK, "cat.jpg: an example of cat")
			run("", "prompt-sets", "put", "pets.yaml").expect(t, exitFailed, "has examples which the file does not have, of cat: --replace")
			run("", "prompt-sets", "export", "-o", "out.yaml").expect(t, exitOK)
			run("", "prompt-sets", "export", "pets", "-o", "out.json").expect(t, exitOK)
			run("", "prompt-sets", "put", "pets.yaml", "--replace").expect(t, exitOK, "pets: changed")
			run("", "prompt-sets", "import", "out.json").expect(t, exitOK, "pets: changed, 3 labels")
			run("", "prompt-sets", "delete", "pets", "copy").expect(t, exitOK, "pets: deleted", "copy: deleted")
			run("", "prompt-sets", "import", "out.yaml").expect(t, exitOK, "copy: made", "pets: made")
			run("", "prompt-sets", "import", "out.yaml").expect(t, exitOK, "copy: unchanged", "pets: unchanged")
			run(string(must(os.ReadFile(filepath.Join(dir, "out.json")))), "prompt-sets", "import", "-", "--format", "json").expect(t, exitOK, "pets: unchanged")

			folder := labelledSamples(t, "guitar", "cat", "dog", "pizza")
			page := filepath.Join(dir, "out.html")
			run("", "evaluate", "pets", folder, "--html", page).expect(t, exitOK, "prompt set pets, model demo, 4 images, 3 labels", "shown \\ answered")
			wrote(t, page)
			var e struct {
				Images    int
				Confusion [][]int
			}
			if r := run("", "evaluate", "pets", folder, "--json", "--precision", "1", "--apply"); json.Unmarshal([]byte(r.stdout), &e) != nil ||
				e.Images != 4 || len(e.Confusion) != 4 || e.Confusion[0][0] != 1 || e.Confusion[2][2] != 1 {
				t.Errorf("%+v: %s %s", e, r.stdout, r.stderr)
			}
			run("", "evaluate", "pets", labelledSamples(t, "", "cat", "guitar")).expect(t, exitUsage, `folders ["guitar"]`)
			run("", "evaluate", "pets", dir).expect(t, exitUsage, "has no images")

			other := command(t.TempDir(), "prompt-sets", "list")
			other.Env = append(other.Env, env...)
			if r := runProgram(t, other); r.code != exitOK || strings.Contains(r.stdout, "pets") || strings.Contains(r.stderr, "has another state folder") != (how != "alone") {
				t.Errorf("with another state folder: %+v", r)
			}
		})
	}
}

// TestPromptSetsWhereTheyAreNot has services that cannot be asked.
func TestPromptSetsWhereTheyAreNot(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pets.yaml")
	put(t, filepath.Dir(file), map[string]string{"pets.yaml": petsYAML})
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"prompt-sets", "list", "--url", "http://127.0.0.1:1"}, exitFailed, "connection refused"},
		{[]string{"prompt-sets", "list", "--url", "localhost"}, exitUsage, "--url: url"},
		{[]string{"prompt-sets", "list", "--url", "http://127.0.0.1:1", "--model", "demo"}, exitUsage, "--model is of no use with --url"},
		{[]string{"classify", samples + "cat.jpg", "-p", "a cat", "--url", "http://127.0.0.1:1"}, exitFailed, "connection refused"},
		{[]string{"classify", samples + "cat.jpg"}, exitUsage, "--prompt=TEXT or --prompt-set=NAME"},
		{[]string{"prompt-sets", "put", file, "--name", "../pets"}, exitUsage, "is no name of a set"},
		{[]string{"prompt-sets", "put", "-"}, exitUsage, "is no name of a set"},
		{[]string{"prompt-sets", "put", filepath.Join(filepath.Dir(file), "none.yaml")}, exitFailed, "no such file"},
		{[]string{"prompt-sets", "import", file}, exitUsage, "no prompt_sets"},
		{[]string{"evaluate", "pets", "nowhere"}, exitUsage, "nowhere"},
		{[]string{"evaluate", "pets", t.TempDir(), "--precision", "1.5"}, exitUsage, "--precision: 1.5 is out of bounds"},
		{[]string{"prompt-sets", "list", "--model", "clip-vit-b-32"}, exitMissing, "models pull"},
	} {
		hailoClip(t, c.args...).expect(t, c.code, c.says)
	}
}
