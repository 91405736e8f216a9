package compat

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"hailoclip/api/rawjson"
)

// codecService has a model whose vectors have two numbers, and whose factor makes the softmax a choice.
func codecService() *Service {
	s := testService()
	s.Dimension, s.LogitScale, s.ImageSize, s.Version, s.Started = 2, 1e4, 224, "1.2.3", time.Unix(0, 0)
	return s
}

// routeOf finds the route of a dialect.
func routeOf(t *testing.T, d *Dialect, target string) *Route {
	t.Helper()
	for i := range d.Routes {
		if r := &d.Routes[i]; r.Method+" "+r.Path == target {
			return r
		}
	}
	t.Fatalf("%s has no %s", d.Name, target)
	return nil
}

// readBy has a route read a body.
func readBy(t *testing.T, d *Dialect, path, body string) (*Route, *Ask, error) {
	t.Helper()
	r, a := routeOf(t, d, "POST "+path), &Ask{Service: codecService()}
	b, err := Parse([]byte(body))
	if err == nil {
		err = r.JSON(a, b)
	}
	return r, a, err
}

// resultOf is made up: the vectors of the items go round in a circle by quarters, texts have 3 tokens each.
func resultOf(a *Ask) *Result {
	quarters := [][]float32{{1, 0}, {0, 1}, {-1, 0}, {0, -1}}
	r := &Result{ID: "id", Took: 1500 * time.Microsecond}
	for i := range a.Items {
		v := Vector{Embedding: quarters[i%4], Tokens: 3}
		if !a.Items[i].IsText() {
			v = Vector{Embedding: quarters[i%4], Format: "jpeg", Width: 20, Height: 10}
		}
		r.Vectors = append(r.Vectors, v)
	}
	return r
}

const (
	codecShow = `"modified_at":"1970-01-01T00:00:00Z","details":{"parent_model":"","format":"","family":"clip","families":["clip"],"parameter_size":"","quantization_level":""}`
	noImages  = `,"meta":{"api_version":{"version":"%s"},"billed_units":{"input_tokens":%d,"images":0}}}`
)

func TestCodecs(t *testing.T) {
	for _, c := range [...]struct {
		dialect          *Dialect
		path, body       string
		items, answer    string
		whole, hasBase64 bool
	}{
		{dialect: &weaviate, path: "/vectorize", body: `{}`, answer: `{"textVectors":[],"imageVectors":[]}`},
		{dialect: &weaviate, path: "/vectorize", body: `{"texts":[],"images":null}`, answer: `{"textVectors":[],"imageVectors":[]}`},
		{dialect: &weaviate, path: "/vectorize", body: `{"texts":["x","","data:image/png;base64,aGk="],"images":["aGk=","data:image/png;base64,aGk="]}`,
			items:  `T"x" T"" T"data:image/png;base64,aGk=" I"aGk=" I"data:image/png;base64,aGk="`,
			answer: `{"textVectors":[[1,0],[0,1],[-1,0]],"imageVectors":[[0,-1],[1,0]]}`},

		{dialect: &ollama, path: "/api/embed", body: `{"model":"clip-vit-b-32:latest","input":["x","","data:image/png;base64,aGk="],"options":null,"keep_alive":-1}`,
			items:  `T"x" T"" I"data:image/png;base64,aGk="`,
			answer: `{"model":"clip-vit-b-32:latest","embeddings":[[1,0],[0,1],[-1,0]],"total_duration":1500000,"load_duration":0,"prompt_eval_count":6}`},
		{dialect: &ollama, path: "/api/embed", body: `{"model":"openai/clip-vit-base-patch32","input":"x","truncate":false,"dimensions":2}`, items: `T"x"`, whole: true,
			answer: `{"model":"openai/clip-vit-base-patch32","embeddings":[[1,0]],"total_duration":1500000,"load_duration":0,"prompt_eval_count":3}`},
		{dialect: &ollama, path: "/api/embed", body: `{"input":null}`,
			answer: `{"model":"clip-vit-b-32","embeddings":[],"total_duration":1500000,"load_duration":0,"prompt_eval_count":0}`},
		{dialect: &ollama, path: "/api/embed", body: `{"model":"","input":""}`,
			answer: `{"model":"clip-vit-b-32","embeddings":[],"total_duration":1500000,"load_duration":0,"prompt_eval_count":0}`},
		{dialect: &ollama, path: "/api/embeddings", body: `{"prompt":"x","input":"y"}`, items: `T"x"`, answer: `{"embedding":[1,0]}`},
		{dialect: &ollama, path: "/api/embeddings", body: `{"prompt":""}`, answer: `{"embedding":[]}`},
		{dialect: &ollama, path: "/api/embeddings", body: `{}`, answer: `{"embedding":[]}`},
		{dialect: &ollama, path: "/api/show", body: `{"name":"x","model":"openai/clip-vit-base-patch32:latest"}`,
			answer: `{` + codecShow + `,"model_info":{"general.architecture":"clip","clip.context_length":77,"clip.embedding_length":2},"capabilities":["embedding"]}`},

		{dialect: &tei, path: "/embed", body: `{"inputs":"x","truncate":true,"normalize":false,"prompt_name":null}`, items: `T"x"`, answer: `[[1,0]]`},
		{dialect: &tei, path: "/embed", body: `{"inputs":["x","data:image/png;base64,aGk="],"truncate":false}`, whole: true,
			items: `T"x" I"data:image/png;base64,aGk="`, answer: `[[1,0],[0,1]]`},
		{dialect: &tei, path: "/similarity", body: `{"inputs":{"source_sentence":"x","sentences":["y","z"]},"parameters":{"truncate":false}}`, whole: true,
			items: `T"x" T"y" T"z"`, answer: `[0,-1]`},

		{dialect: &huggingFace, path: "/", body: `{"inputs":"x"}`, items: `T"x"`, answer: `[1,0]`},
		{dialect: &huggingFace, path: "/predict", body: `{"inputs":["x"],"parameters":{}}`, items: `T"x"`, answer: `[[1,0]]`},
		{dialect: &huggingFace, path: "/", body: `{"inputs":["x","y"],"parameters":null}`, items: `T"x" T"y"`, answer: `[[1,0],[0,1]]`},
		{dialect: &huggingFace, path: "/", body: `{"inputs":{"sourceSentence":"x","sentences":["y"]}}`, items: `T"x" T"y"`, answer: `[0]`},
		{dialect: &huggingFace, path: "/", body: `{"inputs":{"image":"aGk="},"parameters":{"candidate_labels":["\"cat\""]}}`,
			items: `I"aGk=" T"This is a photo of \"cat\"."`, answer: `[{"label":"\"cat\"","score":1}]`},
		{dialect: &huggingFace, path: "/predict", body: `{"inputs":"aGk=","parameters":{"candidateLabels":"car, cat,dog","hypothesis_template":"a {} {}"}}`,
			items: `I"aGk=" T"a car {}" T"a cat {}" T"a dog {}"`, answer: `[{"label":"car","score":0.5},{"label":"dog","score":0.5},{"label":"cat","score":0}]`},

		{dialect: &huggingFace, path: "/", body: `{"image":"aGk=","parameters":{"candidate_labels":"cat"}}`, items: `I"aGk=" T"This is a photo of cat."`,
			answer: `[{"label":"cat","score":1}]`},

		{dialect: &cohere, path: "/v1/embed", body: `{"texts":["x","data:image/png;base64,aGk="],"input_type":"search_query","truncate":"NONE"}`, whole: true,
			items:  `T"x" T"data:image/png;base64,aGk="`,
			answer: `{"response_type":"embeddings_floats","embeddings":[[1,0],[0,1]],"id":"id","texts":["x","data:image/png;base64,aGk="]` + fmt.Sprintf(noImages, "1", 6)},
		{dialect: &cohere, path: "/v1/embed", body: `{"texts":["x"],"embedding_types":["float"],"output_dimension":2}`, items: `T"x"`,
			answer: `{"response_type":"embeddings_by_type","embeddings":{"float":[[1,0]]},"id":"id","texts":["x"]` + fmt.Sprintf(noImages, "1", 3)},
		{dialect: &cohere, path: "/v2/embed", body: `{"texts":["x"],"embedding_types":["base64","float","base64"],"max_tokens":5,"truncate":"END"}`, items: `T"x"`,
			answer: `{"response_type":"embeddings_by_type","embeddings":{"base64":["AACAPwAAAAA="],"float":[[1,0]]},"id":"id","texts":["x"]` + fmt.Sprintf(noImages, "2", 3)},
		{dialect: &cohere, path: "/v2/embed", body: `{"texts":["x"],"embedding_types":"float"}`, items: `T"x"`,
			answer: `{"response_type":"embeddings_by_type","embeddings":{"float":[[1,0]]},"id":"id","texts":["x"]` + fmt.Sprintf(noImages, "2", 3)},
		{dialect: &cohere, path: "/v2/embed", body: `{"inputs":[{"content":[{"type":"text","text":"x"}]},{"content":[{"type":"image_url","image_url":{"url":"aGk="}}]}],"embedding_types":[]}`,
			items: `T"x" I"aGk="`,
			answer: `{"response_type":"embeddings_by_type","embeddings":{"float":[[1,0],[0,1]]},"id":"id","texts":["x"],"images":[{"width":20,"height":10,` +
				`"format":"jpeg","bit_depth":24}],"meta":{"api_version":{"version":"2"},"billed_units":{"input_tokens":3,"images":1}}}`},
		{dialect: &cohere, path: "/v2/embed", body: `{"images":["aGk=","aGk="]}`, items: `I"aGk=" I"aGk="`,
			answer: `{"response_type":"embeddings_by_type","embeddings":{"float":[[1,0],[0,1]]},"id":"id","texts":[],"images":[{"width":20,"height":10,` +
				`"format":"jpeg","bit_depth":24},{"width":20,"height":10,"format":"jpeg","bit_depth":24}],"meta":{"api_version":{"version":"2"},"billed_units":{"input_tokens":0,"images":2}}}`},

		{dialect: &voyage, path: "/v1/multimodalembeddings", items: `T"x" I"aGk=" I"data:image/png;base64,aGk="`,
			body: `{"inputs":[{"content":[{"type":"text","text":"x"}]},{"content":[{"type":"image_base64","image_base64":"aGk="}]},` +
				`{"content":[{"type":"image_url","image_url":"data:image/png;base64,aGk="}]}],"input_type":null,"truncation":false}`, whole: true,
			answer: `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1,0]},{"object":"embedding","index":1,"embedding":[0,1]},` +
				`{"object":"embedding","index":2,"embedding":[-1,0]}],"model":"clip-vit-b-32","usage":{"text_tokens":3,"image_pixels":400,"total_tokens":3}}`},
		{dialect: &voyage, path: "/v1/multimodalembeddings", body: `{"inputs":[{"content":"x"}],"output_encoding":"base64","encoding_format":null}`, items: `T"x"`, hasBase64: true,
			answer: `{"object":"list","data":[{"object":"embedding","index":0,"embedding":"AACAPwAAAAA="}],"model":"clip-vit-b-32","usage":{"text_tokens":3,"image_pixels":0,"total_tokens":3}}`},
	} {
		t.Run(c.dialect.Name, func(t *testing.T) {
			r, a, err := readBy(t, c.dialect, c.path, c.body)
			if err != nil {
				t.Fatalf("%s %s: %v", c.path, c.body, err)
			}
			if got := show(a); got != c.items || a.Whole != c.whole || a.Base64 != c.hasBase64 {
				t.Errorf("%s %s: %s, whole %t, base64 %t, want %s", c.path, c.body, got, a.Whole, a.Base64, c.items)
			}
			if got := string(r.Write([]byte("before"), a, resultOf(a))); got != "before"+c.answer {
				t.Errorf("%s %s:\n%s, want\n%s", c.path, c.body, got, c.answer)
			}
		})
	}
}

func TestCodecsRefuse(t *testing.T) {
	const embed, hf, multimodal = "/v2/embed", "/predict", "/v1/multimodalembeddings"
	many := `"x"` + strings.Repeat(`,"x"`, MaxItems)
	for _, c := range [...]struct {
		dialect           *Dialect
		path, body        string
		param, text       string
		isModel, isInJSON bool
	}{
		{dialect: &weaviate, path: "/vectorize", body: `{"texts":"x"}`, param: "texts", text: "must be an array"},
		{dialect: &weaviate, path: "/vectorize", body: `{"texts":["x",7]}`, param: "texts[1]", text: "must be a string"},
		{dialect: &weaviate, path: "/vectorize", body: `{"texts":["\ud83d"]}`, param: "texts[0]", text: "half of a character"},
		{dialect: &weaviate, path: "/vectorize", body: `{"texts":[` + many + `]}`, param: "texts", text: "2049, at most 2048"},
		{dialect: &weaviate, path: "/vectorize", body: `{"texts":["x"],"images":[` + many[4:] + `]}`, param: "images", text: "2049, at most 2048"},
		{dialect: &weaviate, path: "/vectorize", body: `{"images":[null]}`, param: "images[0]", text: "as a string"},
		{dialect: &weaviate, path: "/vectorize", body: `{"model":"x"}`, param: "model", text: "does not exist", isModel: true},
		{dialect: &weaviate, path: "/vectorize", body: `[]`, isInJSON: true, text: "must be a JSON object"},

		{dialect: &ollama, path: "/api/embed", body: `{"input":7}`, param: "input", text: "invalid input type"},
		{dialect: &ollama, path: "/api/embed", body: `{"input":{"text":"x"}}`, param: "input", text: "invalid input type"},
		{dialect: &ollama, path: "/api/embed", body: `{"input":["x",["y"]]}`, param: "input[1]", text: "invalid input type"},
		{dialect: &ollama, path: "/api/embed", body: `{"input":["x",null]}`, param: "input[1]", text: "invalid input type"},
		{dialect: &ollama, path: "/api/embed", body: `{"input":[` + many + `]}`, param: "input", text: "2049, at most 2048"},
		{dialect: &ollama, path: "/api/embed", body: `{"model":"llama3:latest","input":"x"}`, param: "model", text: "model 'llama3:latest' not found", isModel: true},
		{dialect: &ollama, path: "/api/embed", body: `{"model":"clip-vit-b-32:v2","input":null}`, param: "model", text: "model 'clip-vit-b-32:v2' not found", isModel: true},
		{dialect: &ollama, path: "/api/embed", body: `{"model":":latest","input":"x"}`, param: "model", text: "model ':latest' not found", isModel: true},
		{dialect: &ollama, path: "/api/embed", body: `{"model":7}`, param: "model", text: "must be a string"},
		{dialect: &ollama, path: "/api/embed", body: `{"input":"x","dimensions":256}`, param: "dimensions", text: "must be 2"},
		{dialect: &ollama, path: "/api/embed", body: `{"input":"x","truncate":"maybe"}`, param: "truncate", text: "must be true"},
		{dialect: &ollama, path: "/api/embeddings", body: `{"prompt":["x"]}`, param: "prompt", text: "'prompt' must be a string"},
		{dialect: &ollama, path: "/api/show", body: `{"name":"llama3"}`, param: "model", text: "model 'llama3' not found", isModel: true},

		{dialect: &tei, path: "/embed", body: `{"input":"x"}`, param: "inputs", text: "Missing 'inputs'"},
		{dialect: &tei, path: "/embed", body: `{"inputs":[]}`, param: "inputs", text: "is empty"},
		{dialect: &tei, path: "/embed", body: `{"inputs":[[101,7592]]}`, param: "inputs", text: "tokens"},
		{dialect: &tei, path: "/similarity", body: `{"inputs":["x"]}`, param: "inputs", text: "must be an object"},
		{dialect: &tei, path: "/similarity", body: `{}`, param: "inputs", text: "must be an object"},
		{dialect: &tei, path: "/similarity", body: `{"inputs":{"sentences":["y"]}}`, param: "inputs.source_sentence", text: "must be a string"},
		{dialect: &tei, path: "/similarity", body: `{"inputs":{"source_sentence":["x"],"sentences":["y"]}}`, param: "inputs.source_sentence", text: "must be a string"},
		{dialect: &tei, path: "/similarity", body: `{"inputs":{"source_sentence":"x"}}`, param: "inputs.sentences", text: "must be an array"},
		{dialect: &tei, path: "/similarity", body: `{"inputs":{"source_sentence":"x","sentences":[]}}`, param: "inputs.sentences", text: "is empty"},
		{dialect: &tei, path: "/similarity", body: `{"inputs":{"source_sentence":"x","sentences":["y"]},"parameters":7}`, param: "parameters", text: "must be an object"},

		{dialect: &huggingFace, path: hf, body: `{}`, param: "inputs", text: "Missing 'inputs'"},
		{dialect: &huggingFace, path: hf, body: `{"image":"aGk="}`, param: "inputs", text: "Missing 'inputs'"},
		{dialect: &huggingFace, path: hf, body: `{"inputs":{"image":"aGk="}}`, param: "parameters.candidate_labels", text: "Missing 'parameters.candidate_labels'"},
		{dialect: &huggingFace, path: hf, body: `{"parameters":{"candidate_labels":["x"]}}`, param: "inputs", text: "Missing 'inputs'"},
		{dialect: &huggingFace, path: hf, body: `{"inputs":{},"parameters":{"candidate_labels":["x"]}}`, param: "inputs", text: "the image in base64"},
		{dialect: &huggingFace, path: hf, body: `{"inputs":["aGk="],"parameters":{"candidate_labels":["x"]}}`, param: "inputs", text: "as a string"},
		{dialect: &huggingFace, path: hf, body: `{"inputs":"aGk=","parameters":{"candidate_labels":[]}}`, param: "parameters.candidate_labels", text: "1 to 2047 labels"},
		{dialect: &huggingFace, path: hf, body: `{"inputs":"aGk=","parameters":{"candidate_labels":7}}`, param: "parameters.candidate_labels", text: "1 to 2047 labels"},
		{dialect: &huggingFace, path: hf, body: `{"inputs":"aGk=","parameters":{"candidate_labels":["x",7]}}`, param: "parameters.candidate_labels[1]", text: "must be a string"},
		{dialect: &huggingFace, path: hf, body: `{"inputs":"aGk=","parameters":{"candidate_labels":"x,,y"}}`, param: "parameters.candidate_labels[1]", text: "not empty"},
		{dialect: &huggingFace, path: hf, body: `{"inputs":"aGk=","parameters":{"candidate_labels":[` + many[4:] + `]}}`, param: "parameters.candidate_labels", text: "2049, at most 2048"},
		{dialect: &huggingFace, path: hf, body: `{"inputs":"aGk=","parameters":{"candidate_labels":"` + strings.Repeat("x,", MaxItems) + `x"}}`, param: "parameters.candidate_labels", text: "1 to 2047 labels"},
		{dialect: &huggingFace, path: hf, body: `{"inputs":"aGk=","parameters":{"candidate_labels":["x"],"hypothesis_template":"a photo"}}`, param: "parameters.hypothesis_template", text: "with {}"},
		{dialect: &huggingFace, path: hf, body: `{"inputs":"aGk=","parameters":{"candidate_labels":["x"],"hypothesis_template":"{}` + strings.Repeat("x", maxTemplate) + `"}}`,
			param: "parameters.hypothesis_template", text: "at most 1024 bytes"},
		{dialect: &huggingFace, path: hf, body: `{"inputs":"x","parameters":[]}`, param: "parameters", text: "must be an object"},

		{dialect: &cohere, path: embed, body: `{"input_type":"search_query"}`, param: "texts", text: "Missing 'texts', 'images' or 'inputs'"},
		{dialect: &cohere, path: embed, body: `{"texts":["x"],"inputs":[{"content":"x"}]}`, param: "inputs", text: "may not be there"},
		{dialect: &cohere, path: embed, body: `{"texts":[]}`, param: "texts", text: "are empty"},
		{dialect: &cohere, path: embed, body: `{"texts":["x"],"embedding_types":["float","int8"]}`, param: "embedding_types", text: "others are not made"},
		{dialect: &cohere, path: embed, body: `{"texts":["x"],"embedding_types":7}`, param: "embedding_types", text: "must be an array"},
		{dialect: &cohere, path: embed, body: `{"texts":["x"],"output_dimension":256}`, param: "output_dimension", text: "must be 2"},
		{dialect: &cohere, path: embed, body: `{"texts":["x"],"truncate":"MIDDLE"}`, param: "truncate", text: "must be true"},
		{dialect: &cohere, path: embed, body: `{"texts":["x"],"model":"embed-v4.0"}`, param: "model", text: "embed-v4.0", isModel: true},
		{dialect: &cohere, path: embed, body: `{"inputs":[{"content":[{"type":"text","text":"x"},{"type":"image_url","image_url":{"url":"aGk="}}]}]}`, param: "inputs[0]", text: "a text and an image"},

		{dialect: &voyage, path: multimodal, body: `{"model":"clip-vit-b-32"}`, param: "inputs", text: "Missing 'inputs'"},
		{dialect: &voyage, path: multimodal, body: `{"inputs":[{"content":[]}]}`, param: "inputs[0]", text: "not empty"},
		{dialect: &voyage, path: multimodal, body: `{"inputs":[{"content":[{"type":"image_base64","image_base64":7}]}]}`, param: "inputs[0].content[0]", text: "as a string"},
		{dialect: &voyage, path: multimodal, body: `{"inputs":[{"content":"x"}],"output_dtype":"int8"}`, param: "output_dtype", text: `must be "float"`},
		{dialect: &voyage, path: multimodal, body: `{"inputs":[{"content":"x"}],"truncation":7}`, param: "truncation", text: "must be true"},
		{dialect: &voyage, path: multimodal, body: `{"inputs":[{"content":"x"}],"model":"voyage-multimodal-3"}`, param: "model", text: "voyage-multimodal-3", isModel: true},
	} {
		_, _, err := readBy(t, c.dialect, c.path, c.body)
		kind := ErrRequest
		switch {
		case c.isModel:
			kind = ErrModel
		case c.isInJSON:
			kind = rawjson.ErrInvalid
		}
		var f *Fault
		if errors.As(err, &f) != !c.isInJSON || !errors.Is(err, kind) || f != nil && f.Param != c.param || !strings.Contains(fmt.Sprint(err), c.text) {
			t.Errorf("%s %.200s: %v, of %v, want %s of %s", c.path, c.body, err, f, c.text, c.param)
		}
	}
}

func TestCodecsSay(t *testing.T) {
	s := codecService()
	s.Aliases = []string{"openai/clip:1"}
	digest := fmt.Sprintf("%x", sha256.Sum256([]byte(s.Model)))
	for _, c := range [...]struct {
		dialect *Dialect
		path    string
		want    string
	}{
		{&weaviate, "/.well-known/live", ""},
		{&weaviate, "/.well-known/ready", ""},
		{&weaviate, "/meta", `{"model_type":"clip","_name_or_path":"clip-vit-b-32","projection_dim":2,"text_config":{"max_position_embeddings":77},"vision_config":{"image_size":224}}`},
		{&ollama, "/api/version", `{"version":"0.17.4"}`},
		{&ollama, "/api/tags", `{"models":[{"name":"clip-vit-b-32:latest","model":"clip-vit-b-32:latest","size":0,"digest":"DIGEST",` + codecShow +
			`},{"name":"openai/clip:1","model":"openai/clip:1","size":0,"digest":"DIGEST",` + codecShow + `}]}`},
		{&tei, "/info", `{"model_id":"clip-vit-b-32","model_sha":null,"model_dtype":"float32","model_type":{"embedding":{"pooling":"last-token"}},"auto_truncate":true,` +
			`"max_input_length":77,"max_batch_tokens":157696,"max_client_batch_size":2048,"version":"1.2.3","sha":null,"docker_label":null}`},
	} {
		reply, err := routeOf(t, c.dialect, "GET "+c.path).Get(s, "")
		got := strings.ReplaceAll(string(reply.Body), digest, "DIGEST")
		if status := map[bool]int{true: 204}[c.want == ""]; err != nil || got != c.want || reply.Status != status {
			t.Errorf("%s: %d %s %v, want %s", c.path, reply.Status, got, err, c.want)
		}
	}
	s.Unready = func() string { return `no "device"` }
	if reply, err := routeOf(t, &weaviate, "GET /.well-known/ready").Get(s, ""); err != nil || reply.Status != 503 || string(reply.Body) != `{"error":"no \"device\""}` {
		t.Errorf("%d %s %v", reply.Status, reply.Body, err)
	}
	if reply, err := routeOf(t, &weaviate, "GET /.well-known/live").Get(s, ""); err != nil || reply.Status != 204 {
		t.Errorf("%d %v", reply.Status, err)
	}
}

func TestCodecsFail(t *testing.T) {
	for _, c := range [...]struct {
		dialect      *Dialect
		status, want int
		body         string
	}{
		{&weaviate, 400, 400, `{"error":"a \"word\""}`},
		{&weaviate, 503, 503, `{"error":"a \"word\""}`},
		{&ollama, 404, 404, `{"error":"a \"word\""}`},
		{&tei, 400, 422, `{"error":"a \"word\"","error_type":"Validation"}`},
		{&tei, 413, 413, `{"error":"a \"word\"","error_type":"Validation"}`},
		{&tei, 429, 429, `{"error":"a \"word\"","error_type":"Overloaded"}`},
		{&tei, 500, 424, `{"error":"a \"word\"","error_type":"Backend"}`},
		{&tei, 503, 503, `{"error":"a \"word\"","error_type":"Unhealthy"}`},
		{&tei, 504, 424, `{"error":"a \"word\"","error_type":"Backend"}`},
		{&huggingFace, 400, 400, `{"error":"a \"word\""}`},
		{&huggingFace, 503, 502, `{"error":"a \"word\""}`},
		{&cohere, 401, 401, `{"message":"a \"word\""}`},
	} {
		f := &Failure{Status: c.status, Code: "code", Text: `a "word"`, Param: "x", RequestID: "id"}
		if got := string(c.dialect.Fail([]byte("before"), f)); got != "before"+c.body || f.Status != c.want {
			t.Errorf("%s %d: %d %s, want %d %s", c.dialect.Name, c.status, f.Status, got, c.want, c.body)
		}
	}
}

// TestCheckAliases: lists of models grow with the square of them.
func TestCheckAliases(t *testing.T) {
	for n, wrong := range map[int]bool{0: false, maxAliases: false, maxAliases + 1: true} {
		c, told := Config{Aliases: slices.Repeat([]string{"mine"}, n)}, ""
		c.Check(func(field, format string, args ...any) { told += field + ": " + fmt.Sprintf(format, args...) })
		if wrong != strings.HasPrefix(told, "aliases: 65 names are out of bounds") || !wrong && told != "" {
			t.Errorf("%d names: %q", n, told)
		}
	}
}
