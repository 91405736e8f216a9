package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"mime/multipart"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// way is one to have images embedded.
type way struct {
	name, path, media string
	body              []byte
	images            int // in a body
	callers           int
}

// TestDialectsThroughput measures how many images a second the service embeds on the simulated chip: with 16 callers and one image a
// request through each dialect, and with 64 images a request from one and two callers, each beside POST /v1/embed/image with 16
// callers, in turns. HAILO_TEST_COMPAT is the number of turns; it decides nothing, and needs a machine that does nothing else:
//
//	make compat-bench N=5
func TestDialectsThroughput(t *testing.T) {
	turns, _ := strconv.Atoi(os.Getenv("HAILO_TEST_COMPAT"))
	if turns < 1 {
		t.Skip("set HAILO_TEST_COMPAT to the number of turns")
	}
	file := must(os.ReadFile(filepath.Join("..", "..", "stages", "decode", "testdata", "pixels", "vga_420.jpg")))
	r := serve(t, t.TempDir(), "--backend", "sim", "--model", "demo", "--set=performance.max_queue_size=64", "--set=logging.requests=0",
		"--set=compat.aliases=ViT-B-32,ViT-B-32__openai", "--set=sim.serve_hash=true")
	client := &fasthttp.HostClient{Addr: strings.TrimPrefix(r.url, "http://"), MaxConns: 64}
	own, ways := waysTo(file)
	ways = slices.DeleteFunc(ways, func(w way) bool { return rateOf(t, client, &w, true) == 0 })
	var base []float64
	rates, shares := make([][]float64, len(ways)), make([][]float64, len(ways))
	for range turns {
		for i := range ways {
			beside, rate := rateOf(t, client, &own, false), rateOf(t, client, &ways[i], false)
			base, rates[i], shares[i] = append(base, beside), append(rates[i], rate), append(shares[i], 100*rate/beside)
		}
	}
	fmt.Printf("%-44s %8.1f images/s (median of %d)\n", own.name, median(base), len(base))
	for i, w := range ways {
		fmt.Printf("%-44s %8.1f images/s, %5.1f %% (%.1f to %.1f in %d turns)\n",
			w.name, median(rates[i]), median(shares[i]), slices.Min(shares[i]), slices.Max(shares[i]), turns)
	}
}

// rateOf returns images a second: the sum of the callers' rates, each from the end of a request to the end of the last one. A try is
// one request a caller, and 0 where the service refuses.
func rateOf(t *testing.T, client *fasthttp.HostClient, w *way, try bool) float64 {
	t.Helper()
	var counts, over, failed atomic.Bool
	ask := func(request *fasthttp.Request, response *fasthttp.Response) bool {
		request.SetRequestURI("http://x" + w.path)
		request.Header.SetMethod("POST")
		request.Header.SetContentType(w.media)
		request.SetBodyRaw(w.body)
		err := client.Do(request, response)
		if err == nil && response.StatusCode() == 200 {
			return true
		}
		if !failed.Swap(true) {
			fmt.Printf("%-44s %d %.200s %v\n", w.name, response.StatusCode(), response.Body(), err)
		}
		return false
	}
	rates := make([]float64, w.callers)
	var callers sync.WaitGroup
	for i := range w.callers {
		callers.Go(func() {
			request, response := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
			var start time.Time
			for n := 0; !over.Load() && ask(request, response) && !try; {
				if now := time.Now(); !start.IsZero() {
					n += w.images
					rates[i] = float64(n) / now.Sub(start).Seconds()
				} else if counts.Load() {
					start = now
				}
			}
		})
	}
	if try {
		callers.Wait()
		return map[bool]float64{false: 1}[failed.Load()]
	}
	time.Sleep(time.Second / 2)
	counts.Store(true)
	time.Sleep(3 * time.Second)
	over.Store(true)
	callers.Wait()
	if failed.Load() {
		t.FailNow()
	}
	sum := 0.0
	for _, rate := range rates {
		sum += rate
	}
	return sum
}

// waysTo have a JPEG embedded: the service's own, and the others.
func waysTo(file []byte) (own way, others []way) {
	coded := base64.StdEncoding.EncodeToString(file)
	uri := "data:image/jpeg;base64," + coded
	add := func(name, path, body string) {
		others = append(others, way{name, path, "application/json", []byte(body), 1, 16})
	}
	add("OpenAI", "/v1/embeddings", `{"input":["`+uri+`"],"encoding_format":"float"}`)
	add("OpenAI, base64", "/v1/embeddings", `{"input":["`+uri+`"],"encoding_format":"base64"}`)
	add("infinity", "/embeddings", `{"modality":"image","input":["`+uri+`"]}`)
	add("vLLM", "/v1/embeddings", `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"`+uri+`"}}]}]}`)
	add("Jina", "/v1/embeddings", `{"input":[{"image":"`+coded+`"}]}`)
	add("Frigate", "/embeddings", `{"content":[{"prompt_string":"<__media__>\n","multimodal_data":["`+coded+`"]}]}`)
	add("Weaviate", "/vectorize", `{"images":["`+coded+`"]}`)
	add("Cohere", "/v2/embed", `{"input_type":"image","embedding_types":["float"],"images":["`+uri+`"]}`)
	add("Voyage", "/v1/multimodalembeddings", `{"inputs":[{"content":[{"type":"image_base64","image_base64":"`+uri+`"}]}]}`)
	add("Hugging Face", "/predict", `{"inputs":{"image":"`+coded+`"},"parameters":{"candidate_labels":["a cat","a dog"]}}`)
	add("Roboflow", "/clip/embed_image", `{"clip_version_id":"ViT-B-32","image":{"type":"base64","value":"`+coded+`"}}`)
	add("Qdrant", "/qdrant/infer", `{"inputs":[{"data":"`+coded+`","data_type":"image","model":"ViT-B-32"}],"inference":"update"}`)
	add("clip-as-service", "/post", `{"data":[{"blob":"`+coded+`"}],"execEndpoint":"/"}`)

	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	must(must(w.CreateFormField("entries")).Write([]byte(`{"clip":{"visual":{"modelName":"ViT-B-32__openai"}}}`)))
	must(must(w.CreateFormFile("image", "blob")).Write(file))
	w.Close()
	others = append(others, way{"Immich", "/predict", w.FormDataContentType(), form.Bytes(), 1, 16})

	const many = 64
	list := strings.Repeat(`"`+uri+`",`, many-1) + `"` + uri + `"`
	for callers := 1; callers <= 2; callers++ {
		for _, w := range [...]way{
			{name: "/v1/embed/batch", path: "/v1/embed/batch", body: []byte(`{"images":[` + list + `]}`)},
			{name: "OpenAI", path: "/v1/embeddings", body: []byte(`{"input":[` + list + `]}`)},
			{name: "OpenAI, base64", path: "/v1/embeddings", body: []byte(`{"input":[` + list + `],"encoding_format":"base64"}`)},
		} {
			w.name, w.media, w.images, w.callers = fmt.Sprintf("%s, %d images a request, callers: %d", w.name, many, callers), "application/json", many, callers
			others = append(others, w)
		}
	}
	return way{"/v1/embed/image, callers: 16", "/v1/embed/image", "application/json", []byte(`{"image":"` + coded + `"}`), 1, 16}, others
}
