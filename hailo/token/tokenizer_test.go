package token

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"hailoclip/hailo/internal/assert"
)

func read(t testing.TB, path string) []byte {
	t.Helper()
	data := assert.Value(os.ReadFile(path))
	return data
}

func loadTokenizer(t testing.TB, path string) *Tokenizer {
	t.Helper()
	tok := assert.Value(Load(bytes.NewReader(read(t, path)), CLIP))
	return tok
}

func demoTokenizer(t testing.TB) *Tokenizer { return loadTokenizer(t, "../demo/tokenizer.json") }

// clipFolder is where CLIP's own tokenizer.json is with golden ids. It is not ours to ship, so
// tests skip without it, unless HAILO_TEST_REQUIRE_SHARED says that it must be there (CI).
func clipFolder(t testing.TB) string {
	dir := os.Getenv("HAILO_TEST_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared")
	}
	dir = filepath.Join(dir, "data", "tokenizer")
	if _, err := os.Stat(dir); err != nil {
		assert.MustTrue(t, os.Getenv("HAILO_TEST_REQUIRE_SHARED") == "", "%v", err)
		t.Skipf("no CLIP tokenizer here (%v); set HAILO_TEST_SHARED", err)
	}
	return dir
}

// golden checks the ids of texts, from several goroutines, and each twice: the second time the words
// come from the cache.
func golden(t *testing.T, tok *Tokenizer, want map[string][]int32) {
	t.Helper()
	assert.MustTrue(t, len(want) != 0, "no golden ids")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 2 {
				for text, ids := range want {
					assert.Diff(t, ids, tok.Encode(text), "%q", text)
				}
			}
		})
	}
	wg.Wait()
}

func TestGoldenDemo(t *testing.T) {
	var want struct {
		IDs map[string][]int32 `json:"token_ids"`
	}
	assert.Must(t, json.Unmarshal(read(t, "../demo/golden.json"), &want))
	golden(t, demoTokenizer(t), want.IDs)
}

func TestGoldenCLIP(t *testing.T) {
	dir := clipFolder(t)
	tok := loadTokenizer(t, filepath.Join(dir, "tokenizer.json"))
	var texts []string
	var ids [][]int32
	assert.Must(t, json.Unmarshal(read(t, filepath.Join(dir, "cases.json")), &texts))
	assert.Must(t, json.Unmarshal(read(t, filepath.Join(dir, "ids.json")), &ids))
	assert.MustTrue(t, len(texts) == len(ids), "%d texts, %d id lists", len(texts), len(ids))
	want := map[string][]int32{}
	for i, text := range texts {
		want[text] = ids[i]
	}
	golden(t, tok, want)
	assert.Equal(t, fmt.Sprint(tok.Size(), tok.start, tok.End()), "49408 49406 49407", "size, start, end")
}

func TestCut(t *testing.T) {
	tok := demoTokenizer(t)
	whole := tok.Encode("a photo of a cat")
	for n := 2; n < len(whole)+3; n++ {
		want := whole
		if n < len(whole) {
			want = append(slices.Clone(whole[:n-1]), tok.End())
		}
		ids, truncated := tok.EncodeCut("a photo of a cat", n)
		assert.True(t, truncated == (n < len(whole)) && slices.Equal(ids, want), "cut to %d: %v, %t, want %v", n, ids, truncated, want)
	}
}

func TestSpecialsInText(t *testing.T) {
	tok := demoTokenizer(t)
	cat := tok.Encode("cat")
	cat = cat[1 : len(cat)-1]
	start, end := []int32{tok.start}, []int32{tok.End()}
	for text, want := range map[string][][]int32{
		"":                           {start, end},
		" \t\n\u00a0":                {start, end},
		"cat<|endoftext|>cat":        {start, cat, end, cat, end},
		"cat <|startoftext|> cat":    {start, cat, start, cat, end},
		"CAT<|STARTOFTEXT|>":         {start, cat, start, end}, // looked for in the normalized text
		"<|endoftext|><|endoftext|>": {start, end, end, end},
	} {
		assert.Diff(t, slices.Concat(want...), tok.Encode(text), "%q", text)
	}
	got := tok.Encode("<|ENDOFTEXT|>")
	assert.True(t, !slices.Contains(got[:len(got)-1], tok.End()), "upper case end token: %v", got)
}

// mergeSlowly is byte pair encoding as the book has it: look at all pairs, merge the best.
func mergeSlowly(t *Tokenizer, word string) []int32 {
	ids := make([]int32, len(word))
	for i := range ids {
		ids[i] = t.bytes[word[i]]
	}
	ids[len(word)-1] = t.lastBytes[word[len(word)-1]]
	for {
		best, at := merge{rank: 1 << 30}, -1
		for i := range len(ids) - 1 {
			if m, ok := t.merges[pair(ids[i], ids[i+1])]; ok && m.rank < best.rank {
				best, at = m, i
			}
		}
		if at < 0 {
			return ids
		}
		ids[at] = best.id
		ids = slices.Delete(ids, at+1, at+2)
	}
}

func TestMergeAgainstTextbook(t *testing.T) {
	tok := demoTokenizer(t)
	s := &scratch{}
	for _, seed := range []string{"a", "photograph", "aaaaaaaa", "elephantstrawberry", "日本語", "hohohoho", "\x00\xff"} {
		for n := range 30 {
			word := strings.Repeat(seed, 1+n/3)[n%len(seed)%3:] + seed[:n%len(seed)]
			if word == "" {
				continue
			}
			assert.Diff(t, mergeSlowly(tok, word), tok.mergeWord(nil, word, s), "%q", word)
		}
	}
}

// A quadratic merge would take an hour on the first of these, of 1 MB, and minutes on others.
func TestHostileText(t *testing.T) {
	tok := demoTokenizer(t)
	for name, text := range map[string]string{
		"one word":        strings.Repeat("ho", 1<<19),
		"one letter":      strings.Repeat("a", 1<<17),
		"one sign":        strings.Repeat("!", 1<<17),
		"end tokens":      strings.Repeat("<|endoftext|>", 1<<13),
		"half end tokens": strings.Repeat("<|endoftext|", 1<<13),
		"spaces":          strings.Repeat(" ", 1<<17),
		"apostrophes":     strings.Repeat("'", 1<<17),
		"combining marks": strings.Repeat("\u0301", 1<<16),
		"not UTF-8":       strings.Repeat("\xff", 1<<17),
	} {
		ids := tok.Encode(text)
		assert.Equal(t, ids[0], tok.start, "%s: begins", name)
		assert.Equal(t, ids[len(ids)-1], tok.End(), "%s: ends", name)
		short, truncated := tok.EncodeCut(text, 77)
		same := slices.Equal(short[:len(short)-1], ids[:len(short)-1])
		assert.True(t, same && truncated == (len(ids) > 77), "%s: cut differs from whole", name)
	}
}

func TestConcurrently(t *testing.T) {
	tok, want := demoTokenizer(t), map[string][]int32{}
	for i := range 200 {
		text := fmt.Sprintf("a photo of %d cats and unseenword%d", i, i)
		want[text] = tok.Encode(text)
	}
	golden(t, demoTokenizer(t), want)
}

func TestPieces(t *testing.T) {
	tok := demoTokenizer(t)
	var text strings.Builder
	for _, p := range tok.Pieces(tok.Encode("a PHOTO of the Müller dog's 日本")) {
		text.WriteString(p.Text)
	}
	got := text.String()
	assert.True(t, strings.HasPrefix(got, "<|startoftext|>a photo of the m") && strings.HasSuffix(got, "<|endoftext|>"), "%q", got)
	assert.True(t, strings.Contains(got, "dog 's "), "%q", got)
	cat := tok.Encode("cat")[1]
	p := tok.Pieces([]int32{cat, -1, int32(tok.Size())})
	assert.True(t, p[0] == Piece{cat, "cat</w>", "cat "} && p[1] == Piece{ID: -1} && p[2].Piece == "", "%+v", p)
}

// smallTokenizer is a whole tokenizer file with no merges but one, to be damaged by edits.
func smallTokenizer(t testing.TB, edits ...string) []byte {
	vocab := map[string]int{}
	for _, r := range byteRunes {
		vocab[string(r)] = len(vocab)
		vocab[string(r)+wordEnd] = len(vocab)
	}
	vocab["ca"] = 512
	vocab["<|startoftext|>"], vocab["<|endoftext|>"] = 513, 514
	v := assert.Value(json.Marshal(vocab))
	file := `{"added_tokens":[{"id":513,"content":"<|startoftext|>","normalized":true},{"id":514,"content":"<|endoftext|>","normalized":false}],` +
		`"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Replace","pattern":{"Regex":"\\s+"},"content":" "},{"type":"Lowercase"}]},` +
		`"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"},"behavior":"Removed","invert":true},{"type":"ByteLevel"}]},` +
		`"model":{"type":"BPE","end_of_word_suffix":"</w>","vocab":` + string(v) + `,"merges":["c a"]}}`
	for i := 0; i < len(edits); i += 2 {
		assert.MustTrue(t, strings.Contains(file, edits[i]), "the file has no %q", edits[i])
		file = strings.ReplaceAll(file, edits[i], edits[i+1])
	}
	return []byte(file)
}

func TestLoad(t *testing.T) {
	for name, edits := range map[string][]string{
		"plain":                   {},
		"merge pairs":             {`"c a"`, `["c","a"]`},
		"newer pattern":           {`"'s|'t`, `"<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t`},
		"added not in vocabulary": {`,"\u003c|endoftext|\u003e":514`, ``},
	} {
		tok := assert.Value(Load(bytes.NewReader(smallTokenizer(t, edits...)), CLIP))
		assert.Diff(t, []int32{513, 512, tok.lastBytes['b'], 514}, tok.Encode("CAb"), "%s", name)
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		says  string // part of the error
		edits []string
	}{
		"other model":      {"model type", []string{`"type":"BPE"`, `"type":"WordPiece"`}},
		"no word end":      {"end_of_word_suffix", []string{`"end_of_word_suffix":"</w>"`, `"end_of_word_suffix":null`}},
		"ignores merges":   {"ignore_merges", []string{`"type":"BPE"`, `"type":"BPE","ignore_merges":true`}},
		"dropout":          {"dropout", []string{`"type":"BPE"`, `"type":"BPE","dropout":0.1`}},
		"other normalizer": {"normalizer", []string{`{"type":"Lowercase"}`, `{"type":"StripAccents"}`}},
		"no normalizer":    {"normalizer", []string{`"normalizer":{`, `"x":{`}},
		"other pattern":    {"pre-tokenizer", []string{`[\\p{N}]|`, `[\\p{N}]+|`}},
		"no vocabulary":    {"no vocabulary", []string{`"vocab":{`, `"x":{`}},
		"same id twice":    {"same id", []string{`"ca":512`, `"ca":511`}},
		"id out of range":  {"want 0 to", []string{`"ca":512`, `"ca":99999`}},
		"negative id":      {"want 0 to", []string{`"ca":512`, `"ca":-1`}},
		"huge id":          {"", []string{`"ca":512`, `"ca":99999999999`}},
		"hole":             {"want 0 to", []string{`"ca":512,`, ``}},
		"missing byte":     {"stand for byte", []string{`"a":`, `"xx":`}},
		"empty token":      {"empty token", []string{`"ca":512`, `"":512`, `"c a"`, ``}},
		"merge of one":     {"two parts", []string{`"c a"`, `"ca"`}},
		"merge of three":   {"two parts", []string{`"c a"`, `["c","a","b"]`}},
		"merge of spaces":  {"two parts", []string{`"c a"`, `"c a b"`}},
		"merge of numbers": {"", []string{`"c a"`, `7`}},
		"merge unknown":    {"not all in the vocabulary", []string{`"c a"`, `"c b"`}},
		"merge twice":      {"a second time", []string{`"c a"`, `"c a","c a"`}},
		"special twice":    {"a second time", []string{`{"id":513,`, `{"id":514,"content":"<|endoftext|>"},{"id":513,`}},
		"special other id": {"in added_tokens", []string{`{"id":514,`, `{"id":3,`}},
		"special missing":  {"lack", []string{`,{"id":514,"content":"<|endoftext|>","normalized":false}`, ``}},
		"another special":  {"only", []string{`{"id":513,`, `{"id":515,"content":"<pad>"},{"id":513,`}},
		"special strips":   {"not supported", []string{`"normalized":true`, `"lstrip":true`}},
		"not JSON":         {"", []string{`{"added_tokens"`, `{{"added_tokens"`}},
		"truncated":        {"", []string{`"merges":["c a"]}}`, `"merges":["c`}},
		"trailing bytes":   {"", []string{`"merges":["c a"]}}`, `"merges":["c a"]}} x`}},
	} {
		_, err := Load(bytes.NewReader(smallTokenizer(t, c.edits...)), CLIP)
		assert.ErrorSays(t, err, ErrFile, c.says, "%s", name)
	}
	tokens := CLIP
	tokens.PadID = 515
	assert.Error(t, assert.Err(Load(bytes.NewReader(smallTokenizer(t)), tokens)), "padding id outside of the vocabulary")
	big := append([]byte(strings.Repeat(" ", maxTokenizerFile)), smallTokenizer(t)...)
	assert.ErrorSays(t, assert.Err(Load(bytes.NewReader(big), CLIP)), nil, "MiB", "too large")
}

func FuzzLoad(f *testing.F) {
	f.Add(smallTokenizer(f))
	f.Add(smallTokenizer(f, `"c a"`, `["c","a"]`))
	f.Add([]byte(`{"model":{"vocab":{"a":0},"merges":["a a"]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		tok, err := Load(bytes.NewReader(data), CLIP)
		if err != nil {
			return
		}
		for _, id := range tok.Encode("A photo of cats<|endoftext|>, don't ¿") {
			assert.MustTrue(t, id >= 0 && int(id) < tok.Size(), "id %d outside of %d", id, tok.Size())
		}
	})
}

func FuzzEncode(f *testing.F) {
	tok := demoTokenizer(f)
	f.Add("a photo of a cat", 77)
	f.Add("İ<|endoftext|>'LL \xff 99", 3)
	f.Fuzz(func(t *testing.T, text string, n int) {
		ids := tok.Encode(text)
		assert.MustTrue(t, slices.Equal(tok.Encode(text), ids), "not the same twice")
		n = 2 + n&127
		cut, truncated := tok.EncodeCut(text, n)
		if truncated != (len(ids) > n) || len(cut) > n || cut[len(cut)-1] != tok.End() || !slices.Equal(cut[:len(cut)-1], ids[:len(cut)-1]) {
			t.Fatalf("cut to %d: %v of %v", n, cut, ids)
		}
	})
}

const tenWords = "a photo of a small brown dog on green grass"

func BenchmarkEncodeWarm(b *testing.B) {
	tok := demoTokenizer(b)
	b.ReportAllocs()
	for b.Loop() {
		tok.EncodeCut(tenWords, 77)
	}
}

// BenchmarkEncodeCold merges every word anew.
func BenchmarkEncodeCold(b *testing.B) {
	tok := demoTokenizer(b)
	words := strings.Fields(tenWords)
	s := &scratch{}
	var ids []int32
	b.ReportAllocs()
	for b.Loop() {
		ids = ids[:0]
		for _, w := range words {
			ids = tok.mergeWord(ids, w, s)
		}
	}
}

func BenchmarkLoadTokenizer(b *testing.B) {
	data := read(b, filepath.Join(clipFolder(b), "tokenizer.json"))
	b.ReportAllocs()
	for b.Loop() {
		_, err := Load(bytes.NewReader(data), CLIP)
		assert.Must(b, err)
	}
}

// BenchmarkEncodeOneWord is the worst text there is for a tokenizer: 1 MB without a space.
func BenchmarkEncodeOneWord(b *testing.B) {
	tok := demoTokenizer(b)
	text := strings.Repeat("ho", 1<<19)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		tok.Encode(text)
	}
}
