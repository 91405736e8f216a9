package main

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"hailoclip/api"
	"hailoclip/configs"
	"hailoclip/hailo/doctor"
	"hailoclip/hailo/open"
)

// TestDoctorRoot examines a system in a folder: nothing of this machine is in the report.
func TestDoctorRoot(t *testing.T) {
	r := hailoClip(t, "doctor", "--json", "--root", t.TempDir())
	var report doctor.Report
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || r.code != exitOK {
		t.Fatal(r.code, err, r.stderr)
	}
	if report.Versions.Kernel != "" {
		t.Errorf("this machine's kernel: %+v", report.Versions)
	}
	for _, f := range report.Findings {
		if slices.Contains([]string{"onnxruntime", "libturbojpeg", "model", "backend", "cpu-models"}, f.Check) {
			t.Errorf("of this machine: %+v", f)
		}
	}
}

// TestDoctorHiddenState has a state folder of another user.
func TestDoctorHiddenState(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may look into every folder")
	}
	state := t.TempDir()
	if err := os.Mkdir(filepath.Join(state, "models"), 0); err != nil {
		t.Fatal(err)
	}
	r := runProgram(t, command(state, "doctor"))
	r.expect(t, r.code, "may not look into", "sudo hailo-clip doctor --state-dir "+state)
}

func TestAskService(t *testing.T) {
	health := `{"service":"hailo-clip","status":"degraded","reason":"hot","backend":"npu","runtime_mode":"real"}`
	answers := map[string]string{
		"/health":   health,
		"/v1/stats": `{"npu":{"ready":true,"images_per_second":300,"temperature_celsius":[48.5,null],"throttling":1,"temperature_zone":2}}`,
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write([]byte(answers[r.URL.Path]))
	}))
	defer s.Close()
	address, _ := net.ResolveTCPAddr("tcp", s.Listener.Addr().String())
	c := api.Config{Host: "127.0.0.1", Port: address.Port}
	got := askService(t.Context(), c)
	want := &doctor.Service{Reason: "hot", Temperature: []float64{48.5}, Throttling: 1, Zone: 2, Rate: 300}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	for _, other := range []string{`{"service":"x","backend":"npu","runtime_mode":"real"}`, "<html>", "",
		strings.Replace(health, "npu", "cpu", 1), strings.Replace(health, "real", "simulated", 1),
	} {
		answers["/health"] = other
		if askService(t.Context(), c) != nil {
			t.Errorf("%q counts as the service", other)
		}
	}
	s.Close()
	if askService(t.Context(), c) != nil {
		t.Error("an answer from nobody")
	}
}

// TestDoctorCountsOpenFiles: what the limit of open files does to a start stands in the report of one who would
// start it under that limit.
func TestDoctorCountsOpenFiles(t *testing.T) {
	needONNX(t)
	for limit, want := range map[string]doctor.Level{"20": doctor.Fail, "200": doctor.Warn, "4096": ""} {
		c := by(command(t.TempDir(), "doctor", "--json", "--model", "demo", "--backend", "cpu"), "sh", "-c", `ulimit -n "$0" && exec "$@"`, limit)
		c.Env = append(c.Env, "HAILO_CLIP_SERVER_PORT=0")
		r := runProgram(t, c)
		var report doctor.Report
		if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
			t.Fatal(err, r.stderr)
		}
		i := slices.IndexFunc(report.Findings, func(f doctor.Finding) bool { return f.Check == "open-files" })
		if i < 0 && want != "" || i >= 0 && report.Findings[i].Level != want || (r.code == exitFailed) != (want == doctor.Fail) {
			t.Errorf("limit %s: exit code %d, %+v", limit, r.code, report.Findings)
		}
	}
}

// TestDoctorCompat: what would keep clients of other systems from the service stands in the report, with its remedy.
func TestDoctorCompat(t *testing.T) {
	pong := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ping" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer pong.Close()
	taken := must(net.Listen("tcp", "127.0.0.1:0"))
	defer taken.Close()
	free := must(net.Listen("tcp", "127.0.0.1:0"))
	free.Close()
	key := "access: {keys: [{name: a, hash: \"sha256:" + strings.Repeat("1", 64) + "\"}]}\n"
	for _, c := range []struct {
		name, config string
		level        doctor.Level // the worst of the check
		texts        []string
	}{
		{"as it is", "", doctor.OK, []string{"openai, immich", "the model is demo."}},
		{"a name", "compat: {aliases: [mine], voyage: false}", doctor.OK, []string{"demo, mine.", "cohere, roboflow"}},
		{"a name of another model", "compat: {aliases: [mine, ViT-B-32__openai]}", doctor.Warn, []string{"is the model clip-vit-b-32", "clip.model: clip-vit-b-32"}},
		{"keys", key, doctor.Info, []string{"Immich sends no key", "compat.immich.listen", "Authorization: Bearer"}},
		{"keys, and Immich is to come", key + "compat: {immich: {upstream: " + pong.URL + "}}", doctor.Warn, []string{"Immich sends no key", "answers: " + pong.URL}},
		{"keys, and a way in", key + "compat: {immich: {listen: " + free.Addr().String() + "}}", doctor.Info, nil},
		{"a way in that is taken", "compat: {immich: {listen: " + taken.Addr().String() + "}}", doctor.Fail, []string{"would not start", "compat.immich.listen"}},
		{"nobody upstream", "compat: {immich: {upstream: 'http://" + free.Addr().String() + "'}}", doctor.Warn, []string{"does not answer", "curl http://"}},
		{"something else upstream", "compat: {immich: {upstream: " + pong.URL + "/x}}", doctor.Warn, []string{"404"}},
		{"vectors that are made up", "clip: {backend: sim}", doctor.Info, []string{"503", "sim.vectors: model"}},
		{"and served", "clip: {backend: sim}\nsim: {serve_hash: true}", doctor.OK, nil},
		{"no Immich", key + "compat: {immich: {enabled: false, listen: " + taken.Addr().String() + "}, openai: false}", doctor.OK, []string{"served: frigate"}},
	} {
		r := runProgram(t, command(t.TempDir(), "doctor", "--json", "--model", "demo", "--config", configFile(t, "server: {port: 0}\n"+c.config)))
		var report doctor.Report
		if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
			t.Fatal(err, r.stderr)
		}
		worst, said, levels := doctor.OK, "", []doctor.Level{doctor.OK, doctor.Info, doctor.Warn, doctor.Fail}
		for _, f := range report.Findings {
			if f.Check == "compat" {
				worst, said = levels[max(slices.Index(levels, worst), slices.Index(levels, f.Level))], said+f.What+f.Remedy+"\n"
			}
		}
		if worst != c.level {
			t.Errorf("%s: %s, want %s: %s", c.name, worst, c.level, said)
		}
		for _, text := range c.texts {
			if !strings.Contains(said, text) {
				t.Errorf("%s: no %q in %s", c.name, text, said)
			}
		}
	}
}

// TestSlowConfiguration has the numbers of the former service's file and unit.
func TestSlowConfiguration(t *testing.T) {
	serve(t, t.TempDir(), "--backend", "cpu", "--config", configFile(t, slowConfig)).logs(t, "4.7 times", "80% counts one core")
	root := t.TempDir()
	put(t, root, map[string]string{"lib/systemd/system/hailo-clip.service": "[Service]\nCPUQuota=90%\n"})
	of := func() []doctor.Finding {
		f := findings{place: place{cfg: configs.Config{CLIP: configs.CLIP{Config: open.Config{BatchSize: 1}}}}, env: doctor.Env{Root: root}}
		f.configuration()
		return f.all
	}
	if found := of(); len(found) != 2 || !strings.Contains(found[1].What, "90%") || !strings.Contains(found[1].Remedy, "CPUQuota=") {
		t.Errorf("of the unit: %+v", found)
	}
	put(t, root, map[string]string{"etc/systemd/system/hailo-clip.service.d/quota.conf": "[Service]\nCPUQuota=\n"})
	if found := of(); len(found) != 1 {
		t.Errorf("after the remedy: %+v", found)
	}
}
