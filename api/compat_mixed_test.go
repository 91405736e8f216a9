package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// mixed is a request of TestMixedCallers: what its vectors are of, in their order.
type mixed struct {
	path, media string
	body        []byte
	want        []string
	similarity  bool // the answer has the cosines of the first and the others
	ranked      []string
}

// jsonText writes a text as a JSON string, with or without escapes.
func jsonText(random *rand.Rand, text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range text {
		switch random.IntN(8) {
		case 0:
			if c < 1<<16 {
				fmt.Fprintf(&b, `\u%04x`, c)
				continue
			}
			fallthrough
		default:
			quoted, _ := json.Marshal(string(c))
			b.Write(quoted[1 : len(quoted)-1])
		}
	}
	b.WriteByte('"')
	return b.String()
}

// jsonImage writes an image as a JSON string: base64 of either alphabet, padded or not, with white space, escapes and a prefix or not.
func jsonImage(random *rand.Rand, text string, uri bool) string {
	coding := [...]*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding}[random.IntN(4)]
	coded := coding.EncodeToString(imageFile(text))
	prefix := ""
	if uri || random.IntN(3) == 0 {
		prefix = "data:image/bmp;base64,"
	}
	switch random.IntN(4) {
	case 0:
		at := random.IntN(len(coded))
		coded = coded[:at] + `\r\n ` + coded[at:]
	case 1:
		coded = strings.ReplaceAll(coded, "A", `\u0041`)
		prefix = strings.ReplaceAll(prefix, "/", `\/`)
	}
	return `"` + prefix + coded + `"`
}

// jsonField writes a field under one of its spellings, often after one of the same name that does not count.
func jsonField(random *rand.Rand, name, value string) string {
	spelled := []string{name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:]}
	s := fmt.Sprintf("%q:%s", spelled[random.IntN(3)], value)
	if random.IntN(3) == 0 {
		other := [...]string{"null", `"a decoy"`, `["decoy", {"image":"AAAA"}]`, "[[[]]]", "17"}[random.IntN(5)]
		s = fmt.Sprintf("%q:%s, %s", spelled[random.IntN(3)], other, s)
	}
	return s
}

// newMixed makes a request in one of the dialects. Texts and images have names of their own.
func newMixed(random *rand.Rand, name string) (m mixed) {
	n := 1 + random.IntN(6)
	item := func(i int) string { return fmt.Sprintf("%s %d ü😀\"\\", name, i) }
	texts, images, both := []string{}, []string{}, []string{}
	for i := range n {
		texts = append(texts, jsonText(random, item(i)))
		images = append(images, jsonImage(random, item(i), false))
		m.want = append(m.want, item(i))
		if random.IntN(2) == 0 {
			both = append(both, texts[i])
		} else {
			both = append(both, jsonImage(random, item(i), true))
		}
	}
	list := func(all []string) string { return "[" + strings.Join(all, " , ") + "]" }
	objects := func(format string, all []string) string {
		var o []string
		for _, one := range all {
			o = append(o, fmt.Sprintf(format, one))
		}
		return list(o)
	}
	f := func(name, value string) string { return jsonField(random, name, value) }
	m.media = "application/json"
	body := ""
	switch random.IntN(20) {
	case 0:
		m.path, body = "/v1/embeddings", f("input", list(both))
	case 1:
		m.path, body = "/embeddings", f("input", list(images))+","+f("modality", `"image"`)+`,"encoding_format":"base64"`
	case 2:
		m.path, body = "/v1/embeddings", f("input", objects(`{"image":"x","Image":%s}`, images))
	case 3:
		m.path, body = "/v1/embeddings", f("input", objects(`{"content":[{"type":"text","text":%s}]}`, texts))
	case 4:
		m.path, body = "/embeddings", f("content", objects(`{"prompt_string":"<__media__>\n","multimodal_data":[%s]}`, images))
	case 5:
		m.path, body = "/vectorize", f("images", list(images[n/2:]))+","+f("texts", list(texts[:n/2]))
	case 6:
		m.path, body = "/api/embed", f("input", list(both))
	case 7:
		m.path, body, m.want = "/api/embeddings", f("prompt", texts[0]), m.want[:1]
	case 8:
		m.path, body = "/embed", f("inputs", list(both))
	case 9:
		m.path, body = "/similarity", f("inputs", fmt.Sprintf(`{"sentences":%s,"source_sentence":%s}`, list(both), both[0]))
		m.similarity, m.want = true, append(m.want[:1:1], m.want...)
	case 10:
		m.path, body = "/", f("inputs", fmt.Sprintf(`{"image":%s}`, images[0]))+`,`+f("parameters", fmt.Sprintf(`{"hypothesis_template":"{}","candidate_labels":%s}`, list(texts)))
		m.ranked = m.want
	case 11:
		m.path, body = "/v2/embed", f("texts", list(texts[:n/2]))+","+f("images", list(images[n/2:]))+`,"embedding_types":["base64"]`
	case 12:
		m.path, body = "/v1/embed", f("inputs", objects(`{"content":[{"type":"image_url","image_url":{"url":%s}}]}`, images))
	case 13:
		m.path, body = "/v1/multimodalembeddings", f("inputs", objects(`{"content":[{"type":"image_base64","image_base64":%s}]}`, images))
	case 14:
		m.path, body = "/clip/embed_image", f("image", objects(`{"type":"base64","value":%s}`, images))
	case 15:
		m.path, body = "/clip/compare", f("subject", images[0])+","+f("prompt", list(texts))
		m.similarity, m.want = true, append(m.want[:1:1], m.want...)
	case 16:
		m.path, body = "/qdrant/infer", f("inputs", objects(`{"data":%s,"data_type":"image","model":"test-clip"}`, images))
	case 17:
		m.path, body = "/post", f("data", objects(`{"blob":%s,"id":"x"}`, images))
	default:
		entries, part, data := visualEntries, "image", string(imageFile(item(0)))
		if m.want = m.want[:1]; random.IntN(2) == 0 {
			entries, part, data = textEntries, "text", item(0)
		}
		var sent string
		m.path = "/predict"
		m.media, sent = asNode("assetId", "x", "entries", entries, part, data)
		m.body = []byte(sent)
		return m
	}
	m.body = []byte(strings.Repeat(" ", random.IntN(3)) + "{" + body + "}")
	return m
}

// wrong says what is wrong with an answer; "": nothing is.
func (m *mixed) wrong(r reply) string {
	if r.status != 200 {
		return "refused"
	}
	if m.ranked != nil {
		var list []struct {
			Label string
			Score float64
		}
		if json.Unmarshal(r.body, &list) != nil || len(list) != len(m.ranked) || list[0].Label != m.ranked[0] {
			return "not the labels of the image"
		}
		return ""
	}
	if m.similarity {
		var cosines []float64
		var compared struct{ Similarity []float64 }
		if json.Unmarshal(r.body, &cosines) != nil && json.Unmarshal(r.body, &compared) == nil {
			cosines = compared.Similarity
		}
		if len(cosines) != len(m.want)-1 {
			return "not as many cosines"
		}
		for i, cosine := range cosines {
			if math.Abs(dot(testVector(m.want[0]), testVector(m.want[1+i]))-cosine) > 1e-3 {
				return fmt.Sprint("another cosine at ", i)
			}
		}
		return ""
	}
	found := vectorsIn(r.body)
	if len(found) != len(m.want) {
		return fmt.Sprintf("%d vectors for %d items", len(found), len(m.want))
	}
	for i, v := range found {
		if len(v) != testDimension || dot(v, testVector(m.want[i])) < 0.999 {
			return fmt.Sprintf("vector %d is not that of %q", i, m.want[i])
		}
	}
	return ""
}

// TestMixedCallers: 64 callers at once ask in all dialects, with fields that come twice and in other letters, escapes wherever JSON
// has them, and images in all their forms; some leave in the middle, some have a deadline that passes in the middle, and the settings are
// applied meanwhile, with a dialect turned off and on. HAILO_TEST_REQUESTS says how often each asks. Whoever gets vectors gets those of its own texts and images.
func TestMixedCallers(t *testing.T) {
	s := serve(t, func(c *Config, svc *Service) {
		speaksAll(c, svc)
		c.MaxConnections = 256
	})
	requests, _ := strconv.Atoi(os.Getenv("HAILO_TEST_REQUESTS"))
	if requests <= 0 {
		requests = 8
	}
	var good, gone, late atomic.Int32
	var callers sync.WaitGroup
	for caller := range 64 {
		callers.Go(func() {
			random := rand.New(rand.NewPCG(13, uint64(caller)))
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for n := range requests {
				if random.IntN(16) == 0 {
					c := s.rules.Load().compat
					c.Ollama = random.IntN(2) == 0
					s.Apply(s.cfg, c, testRequestLimit, testRequestLimit)
				}
				m := newMixed(random, fmt.Sprintf("caller %d, request %d", caller, n))
				if random.IntN(8) == 0 { // it leaves once all is sent
					c, err := net.Dial("tcp", s.addr)
					if err != nil {
						t.Error(err)
						return
					}
					fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", m.path, m.media, len(m.body), m.body)
					c.Close()
					gone.Add(1)
					continue
				}
				var body io.Reader = bytes.NewReader(m.body)
				if random.IntN(4) == 0 {
					body = struct{ io.Reader }{body} // in chunks
				}
				req := must(http.NewRequest(http.MethodPost, s.url+m.path, body))
				req.Header.Set("Content-Type", m.media)
				hurried := random.IntN(8) == 0
				if hurried {
					req.Header.Set(headerTimeout, strconv.Itoa(1+random.IntN(20)))
				}
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				r := must(read(resp))
				off := r.status == 404 && strings.HasPrefix(m.path, "/api/")
				switch why := m.wrong(r); {
				case why == "":
					good.Add(1)
				case hurried && (r.status == 504 || r.status == 424): // the latter is TEI's
					late.Add(1)
				case off:
				default:
					t.Errorf("%s: %d %.200s\n%s %.600q", why, r.status, r.body, m.path, m.body)
				}
			}
		})
	}
	callers.Wait()
	t.Log(good.Load(), "answers,", gone.Load(), "callers gone,", late.Load(), "too late")
	s.allReturned(t)
	if good.Load() == 0 || strings.Contains(s.log.String(), "panic") {
		t.Error("there was a panic, or no answer")
	}
}

// TestLargeRequestsAreRefusedEarly: who asks for more vectors than there is memory for their answer hears so at once, and not when all
// are made. Others are served.
func TestLargeRequestsAreRefusedEarly(t *testing.T) {
	s := serve(t, func(c *Config, svc *Service) {
		speaksAll(c, svc)
		c.MaxBodyMemoryBytes, c.MaxBodyBytes = 2<<20, 1<<20
	})
	ask := func(ip string, first string, n int) net.Conn {
		body := fmt.Sprintf(`{"inputs":[{"image":%q}%s]}`, b64(first), strings.Repeat(`,"a text"`, n-1))
		return s.sendFrom(t, ip, fmt.Sprintf("POST /embed HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	}
	inside := ask("127.0.0.1", heldImage, 200)
	<-s.entered
	if r := only(t, ask("127.0.0.1", goodImage, 200)); r.status != 429 || !strings.Contains(string(r.body), `"Overloaded"`) {
		t.Errorf("%d %.200s", r.status, r.body)
	}
	s.release()
	if r := only(t, inside); r.status != 200 || len(vectorsIn(r.body)) != 200 {
		t.Errorf("%d %.200s", r.status, r.body)
	}
	if r := only(t, ask("127.0.0.2", goodImage, 200)); r.status != 200 {
		t.Errorf("afterwards: %d %.200s", r.status, r.body)
	}
	s.allReturned(t)
}
