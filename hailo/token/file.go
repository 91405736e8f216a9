package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrFile says that a tokenizer.json is damaged or not CLIP's kind.
var ErrFile = errors.New("bad tokenizer file")

const (
	maxTokenizerFile = 32 << 20 // bytes; CLIP's is 2 to 4 MB
	maxVocabulary    = 1 << 20  // tokens; CLIP has 49,408
	wordEnd          = "</w>"
)

// CLIP's pattern, and what some files have before it. These never match: special tokens are cut out of
// the text before.
const (
	clipPattern       = `'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+`
	specialsInPattern = `<\|startoftext\|>|<\|endoftext\|>|`
)

// Specials names the special tokens of a tokenizer. The JSON is that of a model's manifest.
type Specials struct {
	Start string `json:"start"`
	End   string `json:"end"`
	// PadID fills the text after the end token. Any id will do where the text encoder pools at
	// the first end token under a causal mask, as CLIP's does: Hugging Face pads with the end
	// token, OpenAI and the vendor's applications with 0.
	PadID int32 `json:"pad_id"`
}

// CLIP has the special tokens of CLIP and all models derived from it, with the padding of the
// vendor's applications.
var CLIP = Specials{Start: "<|startoftext|>", End: "<|endoftext|>"}

// Validate checks what can be told without the tokenizer's file.
func (s Specials) Validate() error {
	var errs []error
	if !isMark(s.Start) || !isMark(s.End) || s.Start == s.End {
		errs = append(errs, fmt.Errorf("tokens.start %q and tokens.end %q: want two, of the form <...>", s.Start, s.End))
	}
	if s.PadID < 0 || s.PadID >= maxVocabulary {
		errs = append(errs, fmt.Errorf("tokens.pad_id is %d, want 0 to %d", s.PadID, maxVocabulary-1))
	}
	return errors.Join(errs...)
}

// tokenizerFile is what matters of a tokenizer.json.
type tokenizerFile struct {
	AddedTokens []struct {
		ID         int32  `json:"id"`
		Content    string `json:"content"`
		SingleWord bool   `json:"single_word"`
		LStrip     bool   `json:"lstrip"`
		RStrip     bool   `json:"rstrip"`
		Normalized bool   `json:"normalized"`
	} `json:"added_tokens"`
	Normalizer   tokenizerStep `json:"normalizer"`
	PreTokenizer tokenizerStep `json:"pre_tokenizer"`
	Model        struct {
		Type         string           `json:"type"`
		Dropout      float64          `json:"dropout"`
		Prefix       string           `json:"continuing_subword_prefix"`
		Suffix       string           `json:"end_of_word_suffix"`
		IgnoreMerges bool             `json:"ignore_merges"`
		Vocab        map[string]int32 `json:"vocab"`
		Merges       []mergeLine      `json:"merges"`
	} `json:"model"`
}

// tokenizerStep is a normalizer or pre-tokenizer, or a sequence of them.
type tokenizerStep struct {
	Type          string          `json:"type"`
	Normalizers   []tokenizerStep `json:"normalizers"`
	PreTokenizers []tokenizerStep `json:"pretokenizers"`
	Content       string          `json:"content"`
	Behavior      string          `json:"behavior"`
	Invert        bool            `json:"invert"`
	Pattern       struct {
		Regex string `json:"Regex"`
	} `json:"pattern"`
}

// String names the step, or those of the sequence, for comparison with CLIP's.
func (s tokenizerStep) String() string {
	switch s.Type {
	case "Sequence":
		var parts []string
		for _, step := range append(s.Normalizers, s.PreTokenizers...) {
			parts = append(parts, step.String())
		}
		return strings.Join(parts, ", ")
	case "Replace":
		return fmt.Sprintf("Replace %q %q", s.Pattern.Regex, s.Content)
	case "Split":
		return fmt.Sprintf("Split %q %s %t", strings.TrimPrefix(s.Pattern.Regex, specialsInPattern), s.Behavior, s.Invert)
	}
	return s.Type
}

// mergeLine is one merge: "a b" in older files, ["a", "b"] in newer ones.
type mergeLine [2]string

func (m *mergeLine) UnmarshalJSON(data []byte) error {
	var one string
	if data[0] == '[' {
		var two []string
		if err := json.Unmarshal(data, &two); err != nil {
			return err
		}
		if len(two) == 2 {
			*m = mergeLine(two)
			return nil
		}
	} else if err := json.Unmarshal(data, &one); err != nil {
		return err
	} else if a, b, ok := strings.Cut(one, " "); ok && !strings.Contains(b, " ") {
		*m = mergeLine{a, b}
		return nil
	}
	return fmt.Errorf("merge %.60s does not have two parts", data)
}

// Load reads a tokenizer.json of CLIP's kind, at most 32 MiB: byte-level BPE with "</w>" at
// word ends, CLIP's normalizer and pattern, and the special tokens start and end of tokens. What the
// file says otherwise is refused with ErrFile, so that a file of another kind cannot silently
// give other ids. Padding, truncation and post-processing in the file are ignored.
func Load(r io.Reader, tokens Specials) (*Tokenizer, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxTokenizerFile+1))
	if err != nil {
		return nil, fmt.Errorf("tokenizer file: %w", err)
	}
	if len(data) > maxTokenizerFile {
		return nil, fmt.Errorf("%w: more than %d MiB", ErrFile, maxTokenizerFile>>20)
	}
	var f tokenizerFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFile, err)
	}
	t := &Tokenizer{}
	t.scratch.New = func() any { return &scratch{} }
	for _, step := range []func(*tokenizerFile) error{
		checkKind, t.loadVocabulary, t.loadMerges,
		func(f *tokenizerFile) error { return t.loadSpecials(f, tokens) },
	} {
		if err := step(&f); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFile, err)
		}
	}
	return t, nil
}

// checkKind refuses what Encode would not do as the file says.
func checkKind(f *tokenizerFile) error {
	m := &f.Model
	want := func(what, got, want string) error {
		if got == want {
			return nil
		}
		return fmt.Errorf("%s is %.200q, want %q", what, got, want)
	}
	return errors.Join(
		want("model type", m.Type, "BPE"),
		want("end_of_word_suffix", m.Suffix, wordEnd),
		want("continuing_subword_prefix", m.Prefix, ""),
		want("dropout, ignore_merges", fmt.Sprint(m.Dropout != 0, m.IgnoreMerges), "false false"),
		want("normalizer", f.Normalizer.String(), `NFC, Replace "\\s+" " ", Lowercase`),
		want("pre-tokenizer", f.PreTokenizer.String(), fmt.Sprintf("Split %q Removed true, ByteLevel", clipPattern)),
	)
}

func (t *Tokenizer) loadVocabulary(f *tokenizerFile) error {
	vocab := f.Model.Vocab
	if len(vocab) == 0 {
		return errors.New("no vocabulary")
	}
	for _, a := range f.AddedTokens { // some files have them only here
		if id, ok := vocab[a.Content]; ok && id != a.ID {
			return fmt.Errorf("token %.60q has id %d in the vocabulary and %d in added_tokens", a.Content, id, a.ID)
		}
		vocab[a.Content] = a.ID
	}
	if len(vocab) > maxVocabulary {
		return fmt.Errorf("vocabulary of %d tokens, at most %d", len(vocab), maxVocabulary)
	}
	t.pieces = make([]string, len(vocab))
	for piece, id := range vocab {
		switch {
		case piece == "":
			return errors.New("empty token in the vocabulary")
		case id < 0 || int(id) >= len(vocab):
			return fmt.Errorf("token %.60q has id %d, want 0 to %d", piece, id, len(vocab)-1)
		case t.pieces[id] != "":
			return fmt.Errorf("tokens %.60q and %.60q have the same id %d", piece, t.pieces[id], id)
		}
		t.pieces[id] = piece
	}
	for b, r := range byteRunes {
		var ok, okLast bool
		t.bytes[b], ok = vocab[string(r)]
		t.lastBytes[b], okLast = vocab[string(r)+wordEnd]
		if !ok || !okLast {
			return fmt.Errorf("the vocabulary lacks %q or %q, which stand for byte %#02x", string(r), string(r)+wordEnd, b)
		}
	}
	return nil
}

func (t *Tokenizer) loadMerges(f *tokenizerFile) error {
	vocab, lines := f.Model.Vocab, f.Model.Merges
	if len(lines) > maxVocabulary {
		return fmt.Errorf("%d merges, at most %d", len(lines), maxVocabulary)
	}
	t.merges = make(map[uint64]merge, len(lines))
	for rank, line := range lines {
		a, okA := vocab[line[0]]
		b, okB := vocab[line[1]]
		id, ok := vocab[line[0]+line[1]]
		if !okA || !okB || !ok {
			return fmt.Errorf("merge %d of %.60q and %.60q: not all in the vocabulary", rank, line[0], line[1])
		}
		if _, twice := t.merges[pair(a, b)]; twice {
			return fmt.Errorf("merge %d of %.60q and %.60q: a second time", rank, line[0], line[1])
		}
		t.merges[pair(a, b)] = merge{int32(rank), id}
	}
	return nil
}

func (t *Tokenizer) loadSpecials(f *tokenizerFile, tokens Specials) error {
	var normalized []special
	ids := map[string]int32{}
	for _, a := range f.AddedTokens {
		sp := special{a.Content, a.ID}
		switch _, twice := ids[a.Content]; {
		case a.Content != tokens.Start && a.Content != tokens.End:
			return fmt.Errorf("added token %.60q: only %q and %q are known", a.Content, tokens.Start, tokens.End)
		case twice:
			return fmt.Errorf("added token %q: a second time", a.Content)
		case a.SingleWord || a.LStrip || a.RStrip:
			return fmt.Errorf("added token %q: single_word, lstrip and rstrip are not supported", a.Content)
		case !isMark(a.Content): // so that no two of them overlap in a text
			return fmt.Errorf("added token %.60q is not of the form <...>", a.Content)
		}
		ids[a.Content] = a.ID
		if a.Normalized {
			sp.content = (&scratch{}).normalize(sp.content)
			normalized = append(normalized, sp)
		} else {
			t.specials = append(t.specials, sp)
		}
	}
	t.raw = len(t.specials)
	t.specials = append(t.specials, normalized...)
	var okStart, okEnd bool
	t.start, okStart = ids[tokens.Start]
	t.end, okEnd = ids[tokens.End]
	if !okStart || !okEnd || tokens.Start == tokens.End {
		return fmt.Errorf("added_tokens lack %q or %q", tokens.Start, tokens.End)
	}
	if tokens.PadID < 0 || int(tokens.PadID) >= len(t.pieces) {
		return fmt.Errorf("the padding id %d is not in the vocabulary of %d", tokens.PadID, len(t.pieces))
	}
	return nil
}

// isMark says whether s is "<...>" in printable ASCII without another < or >.
func isMark(s string) bool {
	return len(s) > 2 && s[0] == '<' && s[len(s)-1] == '>' && !strings.ContainsAny(s[1:len(s)-1], "<>") &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// byteRunes is the printable rune that stands for each byte in a byte-level vocabulary: the byte
// itself where Latin-1 prints it, and the next rune from U+0100 on for the others, in order.
// runeBytes is the way back.
var byteRunes, runeBytes = func() (runes [256]rune, bytes map[rune]byte) {
	bytes = make(map[rune]byte, 256)
	next := rune(256)
	for b := range runes {
		r := rune(b)
		if b <= ' ' || b == 0x7F || b > 0x7F && b <= 0xA0 || b == 0xAD {
			r = next
			next++
		}
		runes[b], bytes[r] = r, byte(b)
	}
	return
}()
