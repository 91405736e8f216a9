package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hailoclip/api/client"
	"hailoclip/hailo/demo"
	"hailoclip/hailo/device"
	"hailoclip/hailo/doctor"
)

// verifies runs verify on the service at url.
func verifies(t *testing.T, url string, args ...string) (doctor.Report, int) {
	t.Helper()
	r := hailoClip(t, append([]string{"verify", "--json", "--url", url}, args...)...)
	return r.report(t), r.code
}

// report is what verify or doctor has printed as JSON.
func (r result) report(t *testing.T) (report doctor.Report) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatalf("%v: %s %s", err, r.stdout, r.stderr)
	}
	return report
}

// level is that of a check; "" where it was not done.
func level(r doctor.Report, check string) (worst doctor.Level, what string) {
	for _, f := range r.Findings {
		if f.Check == check {
			worst, what = f.Level, f.What+" "+f.Remedy
		}
	}
	return worst, what
}

func TestVerifyOfServices(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"cpu", "sim"} {
		r := serve(t, t.TempDir(), "--backend", backend)
		report, code := verifies(t, r.url)
		if code != exitOK || report.Level != doctor.OK {
			t.Errorf("%s: exit code %d: %+v", backend, code, report)
		}
		for check, want := range map[string]string{"port": "accepted", "health": "model demo on the " + backend, "ready": "ready",
			"classify": map[string]string{"cpu": "10 of 10 known images", "sim": "10 known images alike"}[backend]} {
			if l, what := level(report, check); l != doctor.OK || !strings.Contains(what, want) {
				t.Errorf("%s: %s is %q: %s", backend, check, l, what)
			}
		}
		r.stop(t)
		report, code = verifies(t, r.url)
		if l, what := level(report, "port"); code != exitFailed || l != doctor.Fail || !strings.Contains(what, "systemctl start hailo-clip") {
			t.Errorf("%s, stopped: exit code %d: %+v", backend, code, report)
		}
	}
}

// TestVerifyOfOthers has what else may answer on the port.
func TestVerifyOfOthers(t *testing.T) {
	t.Parallel()
	const right = "a-key-of-22-characters"
	const healthy = `{"service": "hailo-clip", "status": "healthy", "model": "m", "backend": "cpu", "version": "1"}`
	classified := func(probability float64) string {
		var matches []client.Match
		for i, p := range samplePrompts(must(demo.Samples())) {
			matches = append(matches, client.Match{Text: p, Rank: i + 1, Probability: probability, Score: probability})
		}
		return string(must(json.Marshal(map[string]any{"classifications": matches})))
	}
	for _, c := range []struct {
		name   string
		health string // its answer
		ready  int    // its status
		answer string // to classify; with a number before it, that status
		check  string
		level  doctor.Level
		what   string
	}{
		{"another program", `<html>`, 0, "", "health", doctor.Fail, "is not hailo-clip"},
		{"another service", `{"service": "shop", "status": "healthy"}`, 0, "", "health", doctor.Fail, `"shop"`},
		{"the former service", `{"status": "healthy", "service": "hailo-clip", "model_loaded": true, "model": "clip"}`, 0, "", "health", doctor.Fail, "Python"},
		{"unhealthy", strings.Replace(healthy, `"healthy"`, `"unhealthy", "reason": "the device is lost"`, 1), 503, "503", "health", doctor.Fail, "the device is lost"},
		{"degraded", strings.Replace(healthy, `"healthy"`, `"degraded", "reason": "hot"`, 1), 200, classified(0.1), "health", doctor.Warn, "hot"},
		{"another version", healthy, 200, classified(0.1), "version", doctor.Warn, "systemctl restart"},
		{"not ready", healthy, 503, classified(0.1), "ready", doctor.Fail, "503"},
		{"an old one", healthy, 404, classified(0.1), "ready", doctor.Info, "no /readyz"},
		{"wrong answers", healthy, 200, classified(0.1), "classify", doctor.Fail, "Only 1 of 10"},
		{"answers that make no sense", healthy, 200, classified(0.5), "classify", doctor.Fail, "probabilities make 5"},
		{"an answer that is none", healthy, 200, `[]`, "classify", doctor.Fail, "not classified"},
		{"a key is wanted", healthy, 200, "401", "classify", doctor.Warn, "--key-file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				switch {
				case r.URL.Path == "/health":
					fmt.Fprint(w, c.health)
				case r.URL.Path == "/readyz":
					w.WriteHeader(c.ready)
				case c.answer == "401" && r.Header.Get("Authorization") == "Bearer "+right:
					fmt.Fprint(w, classified(0.1))
				case len(c.answer) == 3:
					w.WriteHeader(map[string]int{"401": 401, "503": 503}[c.answer])
					fmt.Fprint(w, `{"error": "no", "code": "no"}`)
				default:
					fmt.Fprint(w, c.answer)
				}
			}))
			defer s.Close()
			report, code := verifies(t, s.URL)
			if l, what := level(report, c.check); l != c.level || !strings.Contains(what, c.what) {
				t.Errorf("%s is %q: %s", c.check, l, what)
			}
			if failed := report.Level == doctor.Fail; failed != (code == exitFailed) {
				t.Errorf("exit code %d, level %s", code, report.Level)
			}
			if c.answer == "401" {
				key := t.TempDir()
				put(t, key, map[string]string{"key": right + "\n"})
				report, _ := verifies(t, s.URL, "--key-file", filepath.Join(key, "key"))
				if l, what := level(report, "classify"); l != doctor.Fail || !strings.Contains(what, "Only 1 of 10") {
					t.Errorf("with the key: %q: %s", l, what)
				}
			}
		})
	}
}

// TestVerifyNamesAUnitThatHidesThePackages: it stays as it is, but whoever wonders which service runs is told.
func TestVerifyNamesAUnitThatHidesThePackages(t *testing.T) {
	t.Parallel()
	const ours = "usr/lib/systemd/system/hailo-clip.service"
	for _, c := range []struct {
		files map[string]string
		level doctor.Level
		what  string
	}{
		{map[string]string{"etc/passwd": ""}, doctor.Info, "service install"},
		{map[string]string{ours: "[Service]\n"}, doctor.Info, "systemd does not run"},
		{map[string]string{ours: "[Service]\n", unitFile: "[Service]\n"}, doctor.Fail, "sudo rm /etc/systemd/system/hailo-clip.service"},
	} {
		root := t.TempDir()
		put(t, root, c.files)
		v := &verification{}
		v.unit(t.Context(), device.Root(root))
		if l, what := level(v.report(), "unit"); l != c.level || !strings.Contains(what, c.what) {
			t.Errorf("%v: %q: %s", c.files, l, what)
		}
	}
	root := t.TempDir()
	put(t, root, map[string]string{ours: "[Service]\n", "etc/systemd/system/other": ""})
	if err := os.Symlink("/dev/null", filepath.Join(root, unitFile)); err != nil {
		t.Fatal(err)
	}
	if u := device.Root(root).Unit(); !u.Installed || u.Hidden != "" || u.File != "/"+ours {
		t.Errorf("masked: %+v", u)
	}
}
