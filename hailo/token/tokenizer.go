// Package token is CLIP's tokenizer: text to token ids.
package token

import (
	"bytes"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Tokenizer is CLIP's byte-level BPE: it turns text into token ids exactly as the Hugging Face
// tokenizers library does with the same tokenizer.json. Load makes it. Safe for
// concurrent use.
//
// Special tokens written out in the text count as special tokens, as they do there. The end token
// needs a word of warning: CLIP takes its text embedding at the first end token, so that whatever
// follows an "<|endoftext|>" in the text has no influence on the embedding.
//
// Beyond the reference: bytes that are not UTF-8 count as U+FFFD, and a run of more than 30
// combining marks is broken up by a U+034F (the Unicode stream-safe format).
type Tokenizer struct {
	start, end int32
	specials   []special  // first those that are looked for in the text as it is,
	raw        int        // this many, then those looked for in the normalized text
	bytes      [256]int32 // id of each byte inside a word
	lastBytes  [256]int32 // id of each byte at the end of a word
	merges     map[uint64]merge
	pieces     []string // by id
	words      wordCache
	scratch    sync.Pool // of *scratch
}

// special is a special token and what is looked for in the text.
type special struct {
	content string
	id      int32
}

// Piece is a token for people to look at.
type Piece struct {
	ID    int32  `json:"id"`
	Piece string `json:"piece"` // as tokenizer.json has it: a rune for each byte, "</w>" at the end of a word
	Text  string `json:"text"`  // the bytes it stands for, a space after a word; part of a rune shows as U+FFFD
}

// End is the id of the special token after each text.
func (t *Tokenizer) End() int32 { return t.end }

// Size is the number of tokens in the vocabulary: ids are 0 to Size()-1.
func (t *Tokenizer) Size() int { return len(t.pieces) }

// Encode returns the ids of the whole text, start and end token included. Its time grows as
// n log n with the length of the text, whatever the text.
func (t *Tokenizer) Encode(text string) []int32 {
	return append(t.encode(text, int(^uint(0)>>1)), t.end)
}

// EncodeCut returns at most contextLength ids (2 or more): those of Encode, or the first
// contextLength-1 of them and the end token. truncated says that some were left out.
func (t *Tokenizer) EncodeCut(text string, contextLength int) (ids []int32, truncated bool) {
	ids = t.encode(text, contextLength)
	if len(ids) >= contextLength {
		ids, truncated = ids[:contextLength-1], true
	}
	return append(ids, t.end), truncated
}

// Pieces returns the tokens of ids as text. An id outside of the vocabulary has an empty piece.
func (t *Tokenizer) Pieces(ids []int32) []Piece {
	list := make([]Piece, len(ids))
	for i, id := range ids {
		list[i].ID = id
		if id < 0 || int(id) >= len(t.pieces) {
			continue
		}
		p := t.pieces[id]
		list[i].Piece, list[i].Text = p, p
		if id != t.start && id != t.end {
			word, last := strings.CutSuffix(p, wordEnd)
			list[i].Text = visible(word)
			if last {
				list[i].Text += " "
			}
		}
	}
	return list
}

// encode returns the start token and the ids of the text. It may stop early once it has limit ids.
func (t *Tokenizer) encode(text string, limit int) []int32 {
	s := t.scratch.Get().(*scratch)
	defer t.scratch.Put(s)
	ids := append(make([]int32, 0, min(limit, 8+len(text)/4)), t.start)
	ids = t.split(ids, text, 0, limit, s)
	s.shrink()
	return ids
}

// split appends the ids of text, in which it looks for the special tokens from level on. Each level reads the text once,
// however many special tokens there are.
func (t *Tokenizer) split(ids []int32, text string, level, limit int, s *scratch) []int32 {
	if level == t.raw {
		text = s.normalize(text)
	}
	if level == len(t.specials) {
		for len(text) > 0 && len(ids) < limit {
			n, word := nextWord(text)
			if word {
				ids = t.encodeWord(ids, text[:n], s)
			}
			text = text[n:]
		}
		return ids
	}
	for len(ids) < limit {
		part, rest, found := strings.Cut(text, t.specials[level].content)
		ids = t.split(ids, part, level+1, limit, s)
		if !found {
			break
		}
		ids = append(ids, t.specials[level].id)
		text = rest
	}
	return ids
}

// normalize does NFC, then makes each run of white space one space, then lower case rune by rune.
func (s *scratch) normalize(text string) string {
	b := s.text[:0]
	space := false
	for _, r := range norm.NFC.String(text) {
		if unicode.IsSpace(r) {
			space = true
			continue
		}
		if space {
			b = append(b, ' ')
			space = false
		}
		switch {
		case r < utf8.RuneSelf:
			if 'A' <= r && r <= 'Z' {
				r += 'a' - 'A'
			}
			b = append(b, byte(r))
		case r == 'İ': // the one rune whose lower case is two
			b = append(b, "i\u0307"...)
		default:
			b = utf8.AppendRune(b, unicode.ToLower(r))
		}
	}
	s.text = b
	return string(b)
}

// Classes of runes that the pattern of CLIP tells apart:
//
//	's|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+
const (
	space = iota
	letter
	digit
	other
)

func class(r rune) int {
	switch {
	case 'a' <= r && r <= 'z':
		return letter
	case unicode.IsSpace(r):
		return space
	case unicode.IsLetter(r):
		return letter
	case unicode.IsNumber(r):
		return digit
	}
	return other
}

var contractions = [...]string{"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}

// nextWord returns the length of the word that normalized text begins with, and whether it is one:
// white space is not.
func nextWord(text string) (n int, word bool) {
	if text[0] == '\'' {
		for _, c := range contractions {
			if strings.HasPrefix(text, c) {
				return len(c), true
			}
		}
	}
	r, n := utf8.DecodeRuneInString(text)
	k := class(r)
	if k == letter || k == other {
		for n < len(text) {
			r, size := utf8.DecodeRuneInString(text[n:])
			if class(r) != k {
				break
			}
			n += size
		}
	}
	return n, k != space
}

// visible turns the runes of a piece back into the bytes they stand for.
func visible(piece string) string {
	var b bytes.Buffer
	for _, r := range piece {
		if c, ok := runeBytes[r]; ok {
			b.WriteByte(c)
		} else {
			b.WriteRune(r)
		}
	}
	return strings.ToValidUTF8(b.String(), "\uFFFD")
}
