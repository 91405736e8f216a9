package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"io"
	"math"
	"math/rand/v2"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestImmichIndexes has Immich's smart search index previews, two at a time, with searches beside it, and loses the device in the
// middle. Every vector must be there once and be the one of its own preview or text, bit for bit as a chip that was never lost has
// it, or as the other server has it, which answers meanwhile: behind compat.immich.upstream, or as Immich's second server.
// HAILO_TEST_LONG (make immich-test): 1,000 previews of 1440x1080 and 200 searches.
func TestImmichIndexes(t *testing.T) {
	n, searches, width := 45, 15, 360
	if os.Getenv("HAILO_TEST_LONG") != "" {
		n, searches, width = 1000, 200, 1440
	}
	previews := newPreviews(t, n, width, width*3/4)
	texts := make([]string, searches)
	for i := range texts {
		texts[i] = fmt.Sprintf("a drawing of %d things, number %d", i%17, i)
	}
	const clip = "clip:\n  backend: sim\n  model: demo\n"
	const names = "compat:\n  aliases: [" + immichModel + "]\n"
	chipConfig := clip + "sim:\n  vectors: model\n" + names
	never := serve(t, t.TempDir(), "--config", configFile(t, chipConfig))
	cpu := serve(t, t.TempDir(), "--config", configFile(t, strings.Replace(clip, "sim", "cpu", 1)+names))
	onChip, onCPU := referencesOf(t, never, previews, texts), referencesOf(t, cpu, previews, texts)
	same := onChip.cosines(onCPU)
	t.Logf("cosines of the chip's vectors with those of the CPU: %.5f at least, %.5f at the median", same[0], same[len(same)/2])
	never.stop(t)

	for _, withUpstream := range []bool{true, false} {
		t.Run(map[bool]string{true: "upstream", false: "second server"}[withUpstream], func(t *testing.T) {
			other := newMachineLearning(t, cpu.url)
			settings := watchdog + "  on_device_loss: fail\nsim:\n  vectors: model\n  arguments: CONTROL\n" + names + "  immich:\n    listen: 127.0.0.1:0\n"
			if withUpstream {
				settings += "    upstream: " + other.URL + "\n"
			}
			c, r := serveSim(t, settings)
			urls := []string{r.immichURL(t), other.URL}
			if withUpstream {
				urls = urls[:1]
			}
			index(t, c, r, newImmich(t, urls...), other, previews, texts, onChip, onCPU, withUpstream)
			r.stop(t)
		})
	}
}

// TestImmichSettings: Immich's listener needs no key where the port does; a second service on its address does not start; the other
// server can change while the service runs, and the listener cannot.
func TestImmichSettings(t *testing.T) {
	t.Parallel()
	const keys = "access: {keys: [{name: a, hash: 0101010101010101010101010101010101010101010101010101010101010101}]}\n"
	immichAt := func(listen, upstream string) string {
		return keys + "compat: {immich: {listen: '" + listen + "', upstream: '" + upstream + "'}, aliases: [" + immichModel + "]}\n"
	}
	faces := newMachineLearning(t, "http://127.0.0.1:1")
	r := serveConfig(t, immichAt("127.0.0.1:0", ""))
	own := r.immichURL(t)
	m := newImmich(t, own)
	m.clip(t, "visual", "image", must(os.ReadFile(samples+"cat.jpg")), nil)
	if _, err := m.predict(`{"facial-recognition":{"detection":{"modelName":"x"}}}`, "image", nil); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("faces without another server: %v", err)
	}
	if a, err := read(http.Post(r.url+"/predict", "multipart/form-data; boundary=x", http.NoBody)); err != nil || a.status != http.StatusUnauthorized {
		t.Errorf("the port without a key: %v %s", err, a.raw)
	}
	hailoClip(t, "serve", "--backend", "cpu", "--model", "demo", "--host", "127.0.0.1", "--port", "0", "--set", "compat.immich.listen="+strings.TrimPrefix(own, "http://")).
		expect(t, exitFailed, "compat.immich.listen", "address already in use")
	line := r.reload(t, immichAt("127.0.0.1:1", faces.URL))
	r.wants(t, line, `"applied":["compat.immich.upstream"]`, `"needs_restart":["compat.immich.listen"]`)
	m.faces(t, nil)
	r.stop(t)
	if m.pings(own) {
		t.Error("the listener is still there")
	}
}

const immichModel = "ViT-B-32__openai"

// immichURL is where the service has Immich's own listener.
func (r *running) immichURL(t *testing.T) string {
	t.Helper()
	for text := range strings.Lines(r.logged()) {
		var line struct{ Msg, Immich string }
		if json.Unmarshal([]byte(text), &line) == nil && line.Msg == "serving" {
			return "http://" + line.Immich
		}
	}
	t.Fatal("no line of the log says where it is")
	return ""
}

// index has all previews indexed and texts looked for: a third of them, one while the device is away, which begins in the middle of
// the work, and one when it is back.
func index(t *testing.T, c chip, r *running, m *immich, other *machineLearning, previews [][]byte, texts []string, onChip, onCPU references, faces bool) {
	found := references{make([][]float32, len(previews)), make([][]float32, len(texts))}
	images, queries := make(chan int), make(chan int, len(texts))
	var workers sync.WaitGroup
	for range 2 { // the concurrency of smartSearch
		workers.Go(func() {
			for i := range images {
				found.images[i] = m.clip(t, "visual", "image", previews[i], found.images[i])
				if faces && i%10 == 0 {
					m.faces(t, previews[i])
				}
			}
		})
	}
	var took []time.Duration
	workers.Go(func() {
		for i := range queries {
			start := time.Now()
			found.texts[i] = m.clip(t, "textual", "text", []byte(texts[i]), found.texts[i])
			took = append(took, time.Since(start))
		}
	})
	sent, asked := 0, 0
	send := func(to int) {
		for ; sent < to; sent++ {
			images <- sent
			for ; asked < (sent+1)*len(texts)/len(previews); asked++ {
				queries <- asked
			}
		}
	}
	start := time.Now()
	send(len(previews) / 3)
	here := time.Since(start)
	if n := other.tasks.Load(); n > 0 {
		t.Errorf("%d tasks went elsewhere before the device was away", n)
	}
	before := r.stats(t).NPU.Restarts
	c.tell(t, "hang")
	send(len(previews)/3 + 4) // what the chip has then is lost once the watchdog sees that
	until(t, "the chip is replaced", func() bool { return r.stats(t).NPU.Restarts > before })
	back := c.keptAway()
	until(t, "Immich hears that the device is away", func() bool { return !m.pings(m.urls[0]) })
	send(len(previews) * 2 / 3)
	back()
	until(t, "Immich hears that the device is back", func() bool { return m.pings(m.urls[0]) && m.isHealthy(m.urls[0]) })
	elsewhere := other.tasks.Load()
	start = time.Now()
	send(len(previews))
	close(images)
	close(queries)
	workers.Wait()
	again := time.Since(start)

	byChip, byOther := 0, 0
	count := func(what string, i int, v, chip, cpu []float32) {
		switch {
		case v == nil:
			t.Errorf("%s %d: missing", what, i)
		case slices.Equal(v, chip):
			byChip++
		case cosine(v, cpu) > 0.999999 && cosine(v, cpu) > cosine(v, chip):
			byOther++
		default:
			t.Errorf("%s %d: a wrong vector, cosine %.6f with the chip's, %.6f with the other server's", what, i, cosine(v, chip), cosine(v, cpu))
		}
	}
	for i, v := range found.images {
		count("preview", i, v, onChip.images[i], onCPU.images[i])
	}
	for i, v := range found.texts {
		count("text", i, v, onChip.texts[i], onCPU.texts[i])
	}
	if byOther == 0 || int64(byOther) != other.tasks.Load() || elsewhere == 0 {
		t.Errorf("%d vectors are the other server's, which has done %d tasks of CLIP, %d of them while the device was away",
			byOther, other.tasks.Load(), elsewhere)
	}
	if want := (len(previews) + 9) / 10; faces && int(other.faces.Load()) != want {
		t.Errorf("the other server has looked for faces %d times, want %d", other.faces.Load(), want)
	}
	slices.Sort(took)
	t.Logf("%d previews and %d searches: %d vectors of the chip, %d of the other server, none wrong, missing or twice; %.0f previews/s before, %.0f after; "+
		"searches took %v at the median, %v at the worst; Immich went on to its next server %d times", len(previews), len(texts), byChip, byOther,
		float64(len(previews)/3)/here.Seconds(), float64(len(previews)-len(previews)*2/3)/again.Seconds(),
		took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), m.demoted.Load())
}

// keptAway has the chip die whenever it is back, until the function that it returns is called.
func (c chip) keptAway() (back func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			case <-time.After(10 * time.Millisecond):
			}
			conn, err := net.Dial("unix", c.socket)
			if err != nil {
				continue // it is not back
			}
			fmt.Fprintln(conn, "crash")
			_, _ = io.Copy(io.Discard, conn)
			conn.Close()
		}
	}()
	return func() { close(end); <-ended }
}

// immich is what Immich's server does with its machine learning servers: it tries those that it takes for healthy first, each in the
// order of the settings. One that fails is unhealthy until it answers a task or a ping.
type immich struct {
	urls    []string
	client  *http.Client
	demoted atomic.Int64

	mu      sync.Mutex
	healthy map[string]bool
}

func newImmich(t *testing.T, urls ...string) *immich {
	m := &immich{urls: urls, client: &http.Client{Transport: &http.Transport{}}, healthy: map[string]bool{}}
	for _, u := range urls {
		m.healthy[u] = true
	}
	ctx, stop := context.WithCancel(t.Context())
	var checks sync.WaitGroup
	checks.Go(func() {
		for ctx.Err() == nil {
			for _, u := range urls {
				m.set(u, m.pings(u))
			}
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond): // Immich: 30 s
			}
		}
	})
	t.Cleanup(func() {
		stop()
		checks.Wait()
		m.client.CloseIdleConnections()
	})
	return m
}

func (m *immich) set(u string, healthy bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.healthy[u] = healthy
}

func (m *immich) isHealthy(u string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.healthy[u]
}

// pings asks as Immich's check of availability does.
func (m *immich) pings(u string) bool {
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Second)
	defer stop()
	resp, err := m.client.Do(must(http.NewRequestWithContext(ctx, http.MethodGet, u+"/ping", http.NoBody)))
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode == http.StatusOK
}

// predict returns the answer of the first server that has a good one.
func (m *immich) predict(entries, name string, data []byte) ([]byte, error) {
	order := slices.Clone(m.urls)
	slices.SortStableFunc(order, func(a, b string) int {
		rank := map[bool]int{true: 0, false: 1}
		return rank[m.isHealthy(a)] - rank[m.isHealthy(b)]
	})
	var failed error
	for _, u := range order {
		var b bytes.Buffer
		form := multipart.NewWriter(&b)
		_ = form.WriteField("entries", entries)
		if name == "image" {
			file, _ := form.CreateFormFile("image", "blob")
			_, _ = file.Write(data)
		} else {
			_ = form.WriteField(name, string(data))
		}
		form.Close()
		a, err := bodyOf(m.client.Post(u+"/predict", form.FormDataContentType(), &b))
		if err == nil {
			m.set(u, true)
			return a, nil
		}
		failed = errors.Join(failed, fmt.Errorf("%s: %w", u, err))
		m.set(u, false)
		m.demoted.Add(1)
	}
	return nil, fmt.Errorf("the request failed for all URLs: %w", failed)
}

func bodyOf(resp *http.Response, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %.200s", resp.Status, body)
	}
	return body, err
}

// clip returns the vector of an image or a text, which must not have one yet; nil if all servers fail, or answer with anything else.
func (m *immich) clip(t *testing.T, task, name string, data []byte, former []float32) (v []float32) {
	body, err := m.predict(`{"clip":{"`+task+`":{"modelName":"`+immichModel+`"}}}`, name, data)
	var a struct {
		Clip                    string
		ImageHeight, ImageWidth int
	}
	if err = errors.Join(err, json.Unmarshal(body, &a), json.Unmarshal([]byte(a.Clip), &v)); err != nil || former != nil {
		t.Errorf("%s: %v %.200s, former %v", task, err, body, former != nil)
		return nil
	}
	if isImage := name == "image"; isImage != (a.ImageHeight*4 == a.ImageWidth*3 && a.ImageHeight > 0) {
		t.Errorf("%s: %d x %d", task, a.ImageWidth, a.ImageHeight)
	}
	return v
}

func (m *immich) faces(t *testing.T, data []byte) {
	const entries = `{"facial-recognition":{"detection":{"modelName":"buffalo_l","options":{"minScore":0.7}},"recognition":{"modelName":"buffalo_l"}}}`
	if body, err := m.predict(entries, "image", data); err != nil || string(body) != facesFound {
		t.Errorf("faces: %v %s", err, body)
	}
}

const facesFound = `{"facial-recognition":[{"boundingBox":{"x1":1,"y1":2,"x2":3,"y2":4},"embedding":"[0.6,0.8]","score":0.99}],"imageHeight":3,"imageWidth":4}`

// machineLearning stands for Immich's own server: it has CLIP, which a service on the CPU does for it, and finds a face in all images.
type machineLearning struct {
	*httptest.Server
	tasks, faces atomic.Int64 // of CLIP that were done; others
}

func newMachineLearning(t *testing.T, clipURL string) *machineLearning {
	m := &machineLearning{}
	proxy := httputil.NewSingleHostReverseProxy(must(url.Parse(clipURL)))
	proxy.ModifyResponse = func(r *http.Response) error {
		if r.Request.URL.Path == "/predict" && r.StatusCode == http.StatusOK {
			m.tasks.Add(1)
		}
		return nil
	}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client is gone
		}
		if bytes.Contains(body, []byte(`"facial-recognition"`)) {
			m.faces.Add(1)
			fmt.Fprint(w, facesFound)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(m.Close)
	return m
}

// references are the vectors of previews and texts.
type references struct{ images, texts [][]float32 }

// referencesOf asks a service for them by its own paths. No two are alike.
func referencesOf(t *testing.T, r *running, previews [][]byte, texts []string) references {
	t.Helper()
	all := references{make([][]float32, len(previews)), make([][]float32, len(texts))}
	vectorOf := func(path, media string, body []byte) []float32 {
		var a struct{ Embedding []float32 }
		answer, err := bodyOf(http.Post(r.url+path, media, bytes.NewReader(body)))
		if err = errors.Join(err, json.Unmarshal(answer, &a)); err != nil {
			t.Error(err)
		}
		return a.Embedding
	}
	var asking sync.WaitGroup
	for worker := range 8 {
		asking.Go(func() {
			for i := worker; i < len(previews); i += 8 {
				all.images[i] = vectorOf("/v1/embed/image", http.DetectContentType(previews[i]), previews[i])
			}
			for i := worker; i < len(texts); i += 8 {
				all.texts[i] = vectorOf("/v1/embed/text", "application/json", must(json.Marshal(map[string]string{"text": texts[i]})))
			}
		})
	}
	asking.Wait()
	seen := map[string]bool{}
	for _, v := range slices.Concat(all.images, all.texts) {
		if seen[fmt.Sprint(v)] || len(v) == 0 {
			t.Fatal("two previews or texts have the same vector, or one has none")
		}
		seen[fmt.Sprint(v)] = true
	}
	return all
}

func cosine(a, b []float32) float64 {
	var ab, aa, bb float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
	}
	return ab / math.Sqrt(aa*bb)
}

// cosines are those of the vectors of each preview, in order.
func (a references) cosines(b references) (all []float64) {
	for i := range a.images {
		all = append(all, cosine(a.images[i], b.images[i]))
	}
	slices.Sort(all)
	return all
}

// newPreviews makes images, all different: every second one is WebP where ffmpeg can write that, the others are JPEG.
func newPreviews(t *testing.T, n, width, height int) [][]byte {
	t.Helper()
	all := make([][]byte, n)
	dir := t.TempDir()
	webp := exec.Command("ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgba", "-s", fmt.Sprintf("%dx%d", width, height), "-i", "-",
		"-pix_fmt", "yuv420p", "-c:v", "libwebp", "-quality", "80", "-compression_level", "0", filepath.Join(dir, "%d.webp"))
	to, err := webp.StdinPipe()
	if err == nil {
		err = webp.Start()
	}
	if err != nil {
		t.Log("all previews are JPEG: ", err)
	}
	for i := range all {
		random := rand.New(rand.NewPCG(uint64(i), 13))
		m := image.NewRGBA(image.Rect(0, 0, width, height))
		fill := func(r image.Rectangle) {
			c := color.RGBA{uint8(random.Uint32()), uint8(random.Uint32()), uint8(random.Uint32()), 255}
			draw.Draw(m, r, image.NewUniform(c), image.Point{}, draw.Src)
		}
		fill(m.Rect)
		for range 12 {
			x, y := random.IntN(width), random.IntN(height)
			fill(image.Rect(x, y, x+1+random.IntN(width/2), y+1+random.IntN(height/2)))
		}
		if i%2 == 1 && err == nil {
			_, _ = to.Write(m.Pix) // an error is in what ffmpeg says
			continue
		}
		var b bytes.Buffer
		if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 80}); err != nil {
			t.Fatal(err)
		}
		all[i] = b.Bytes()
	}
	if err == nil {
		to.Close()
		if err := webp.Wait(); err != nil {
			t.Fatal(err)
		}
		for i := 1; i < n; i += 2 {
			all[i] = must(os.ReadFile(filepath.Join(dir, fmt.Sprint(i/2+1, ".webp"))))
		}
	}
	return all
}
