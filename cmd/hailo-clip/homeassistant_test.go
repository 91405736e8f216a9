package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"hailoclip/configs"
)

// assistant is what of configuration.yaml the page has.
type assistant struct {
	Rest []struct {
		Resource     string
		Params       map[string]string
		Headers      map[string]string
		Sensor       []entity
		BinarySensor []entity `yaml:"binary_sensor"`
	}
	RestCommand map[string]struct {
		URL, Method, Payload string
		Headers              map[string]string
		ContentType          string `yaml:"content_type"`
	} `yaml:"rest_command"`
	Automation []struct {
		Actions []struct {
			Action string
			Data   struct {
				Camera string
				Labels []string
			}
		}
	}
}

type entity struct {
	Value      string   `yaml:"value_template"`
	Available  string   `yaml:"availability"`
	Attributes []string `yaml:"json_attributes"`
}

// TestHomeAssistant: the configuration in the page is one, and a service that has it answers what Home Assistant is told to send there
// with the fields that it is told to read.
func TestHomeAssistant(t *testing.T) {
	const page, key, token = docs + "home-assistant.md", "hc_the-key-of-home-assistant", "a-token-of-a-camera"
	camera := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := r.BasicAuth()
		switch {
		case !ok:
			w.Header().Set("WWW-Authenticate", `Basic realm="camera"`)
			w.WriteHeader(http.StatusUnauthorized)
		case user+":"+password+"@"+r.URL.Path != "user:password@/snapshot.jpg":
			http.NotFound(w, r)
		default:
			w.Write(must(os.ReadFile(samples + "cat.jpg")))
		}
	}))
	defer camera.Close()
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.String() != "/api/camera_proxy/camera.porch?token="+token {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Write(must(os.ReadFile(samples + "dog.jpg")))
	}))
	defer home.Close()
	host := func(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }

	blocks := map[string][]string{}
	for _, b := range docBlocks(t, page, string(must(os.ReadFile(page)))) {
		blocks[b.kind] = append(blocks[b.kind], strings.NewReplacer("192.168.1.20", host(camera), "192.168.1.5:8123", host(home)).Replace(b.text))
	}
	if len(blocks["yaml hailo-clip"]) != 3 || len(blocks["yaml home-assistant"]) != 2 || len(blocks["json"]) != 1 || len(blocks["sh"]) != 2 {
		t.Fatalf("the page has other blocks than this test: %d", len(blocks))
	}
	file := filepath.Join(t.TempDir(), "hailo-clip.yaml")
	for _, text := range blocks["yaml hailo-clip"] {
		put(t, filepath.Dir(file), map[string]string{"hailo-clip.yaml": text})
		if _, err := configs.Read(file, nil, nil); err != nil {
			t.Error(err)
		}
	}
	put(t, filepath.Dir(file), map[string]string{"hailo-clip.yaml": blocks["yaml hailo-clip"][0] + fmt.Sprintf(
		"fetch: {allow: [%q, %q]}\naccess: {keys: [{name: home, hash: 'sha256:%x'}]}\n", host(home), host(camera), sha256.Sum256([]byte(key)))})
	r := serve(t, t.TempDir(), "--model", "demo", "--backend", "cpu", "--config", file)
	defer r.stop(t)

	ask := func(method, address, body string, headers map[string]string) (answer map[string]any) {
		t.Helper()
		req := must(http.NewRequest(method, strings.Replace(address, "http://192.168.1.10:5000", r.url, 1), strings.NewReader(body)))
		for name, value := range headers {
			req.Header.Set(name, strings.Replace(value, "hailo_clip", "Bearer "+key, 1)) // as secrets.yaml has it
		}
		resp := must(http.DefaultClient.Do(req))
		defer resp.Body.Close()
		text := must(io.ReadAll(resp.Body))
		if err := json.Unmarshal(text, &answer); err != nil || resp.StatusCode > 299 {
			t.Fatalf("%s %s: %d %s", method, address, resp.StatusCode, text)
		}
		return answer
	}
	withKey := map[string]string{"Authorization": "hailo_clip", "Content-Type": "application/json"}
	fields := func(template string, answer map[string]any) {
		t.Helper()
		for _, m := range regexp.MustCompile(`(?:value_json|content)\.(\w+)(?: == '([^']*)')?`).FindAllStringSubmatch(template, -1) {
			if answer[m[1]] == nil {
				t.Errorf("%s: no %s in %v", template, m[1], answer)
			}
			if labels := answer["labels"].(map[string]any); m[2] != "" && labels[m[2]] == nil {
				t.Errorf("%s: no such label in %v", template, labels)
			}
		}
	}
	read := func(text string) (a assistant) {
		t.Helper()
		if err := yaml.Unmarshal([]byte(text), &a); err != nil {
			t.Fatal(err)
		}
		return a
	}

	until(t, "the set is ready", func() bool {
		return ask("GET", r.url+"/v1/prompt-sets/doors", "", withKey)["state"] == "ready"
	})
	sensors := 0
	for _, resource := range read(blocks["yaml home-assistant"][0]).Rest {
		query := url.Values{}
		for name, value := range resource.Params {
			query.Set(name, value)
		}
		address := resource.Resource
		if len(query) > 0 {
			address += "?" + query.Encode()
		}
		answer := ask("GET", address, "", resource.Headers)
		for _, e := range append(resource.Sensor, resource.BinarySensor...) {
			sensors++
			if !strings.Contains(e.Value, "value_json.") || !strings.Contains(e.Available, "value_json.") {
				t.Errorf("%+v", e)
			}
			fields(e.Value+e.Available, answer)
			for _, name := range e.Attributes {
				fields("value_json."+name, answer)
			}
		}
	}
	if sensors != 3 {
		t.Errorf("%d sensors", sensors)
	}

	asJSON := func(v any) string { return string(must(json.Marshal(v))) }
	automations := read(blocks["yaml home-assistant"][1])
	command, data := automations.RestCommand["hailo_clip"], automations.Automation[0].Actions[0].Data
	templates := map[string]string{
		`("` + home.URL + `" ~ state_attr(camera, "entity_picture")) | to_json`: asJSON(home.URL + "/api/camera_proxy/" + data.Camera + "?token=" + token),
		`labels | to_json`: asJSON(data.Labels),
	}
	body := regexp.MustCompile(`\{\{ (.*?) \}\}`).ReplaceAllStringFunc(command.Payload, func(s string) string {
		value, ok := templates[s[len("{{ "):len(s)-len(" }}")]]
		if !ok {
			t.Errorf("what is %s?", s)
		}
		return value
	})
	command.Headers["Content-Type"] = command.ContentType
	answer := ask(command.Method, command.URL, body, command.Headers)
	fields(blocks["yaml home-assistant"][1], answer)
	if !slices.Contains(data.Labels, answer["label"].(string)) {
		t.Errorf("%v", answer)
	}

	example := map[string]any{}
	if err := json.Unmarshal([]byte(blocks["json"][0]), &example); err != nil {
		t.Fatal(err)
	}
	get := regexp.MustCompile(`'(http\S+)'`).FindStringSubmatch(blocks["sh"][0])
	shown := ask("GET", get[1], "", withKey)
	for name := range maps.Keys(example) {
		fields("value_json."+name, shown)
	}
	define := regexp.MustCompile(`(?s)-X (\w+) (http\S+) .* -d '(.*)'`).FindStringSubmatch(blocks["sh"][1])
	if made := ask(define[1], define[2], define[3], withKey); made["id"] != "porch" {
		t.Errorf("%v", made)
	}
	if log := r.logged(); strings.Contains(log, token) || strings.Contains(log, "password@") {
		t.Errorf("the log has secrets: %s", log)
	}
}
