package api

import (
	"bytes"
	"encoding/base64"
	"errors"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// referenceBase64 is the slow and obvious way to decode what decodeImage takes behind the data
// URI's prefix.
func referenceBase64(text string) ([]byte, bool) {
	text = strings.NewReplacer("-", "+", "_", "/", " ", "", "\t", "", "\n", "", "\v", "", "\f", "", "\r", "").Replace(text)
	encoding := base64.RawStdEncoding
	if strings.Contains(text, "=") {
		encoding = base64.StdEncoding
	}
	b, err := encoding.DecodeString(text)
	return b, err == nil
}

// decodeInPlace decodes as a handler does: the text lies in a buffer behind a few other bytes,
// and the image is written from the start of the buffer.
func decodeInPlace(text string, before int) ([]byte, error) {
	body := append(bytes.Repeat([]byte{'"'}, before), text...)
	var scratch [scratchBytes]byte
	return decodeImage(body[:0], body[before:], &scratch)
}

func checkBase64(t *testing.T, text string, before int) {
	t.Helper()
	want, ok := referenceBase64(text)
	got, err := decodeInPlace(text, before)
	ok = ok && len(want) > 0
	if (err == nil) != ok || ok && !bytes.Equal(got, want) {
		t.Fatalf("%.100q (%d bytes): got %d bytes, %v; want %d bytes, %v", text, len(text), len(got), err, len(want), ok)
	}
	if err != nil && !errors.Is(err, errInvalidImage) {
		t.Fatalf("%v is not an errInvalidImage", err)
	}
}

func TestBase64(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	data := make([]byte, 200_000)
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	encodings := map[string]*base64.Encoding{
		"standard": base64.StdEncoding, "standard without padding": base64.RawStdEncoding,
		"URL-safe": base64.URLEncoding, "URL-safe without padding": base64.RawURLEncoding,
	}
	sizes := []int{1, 2, 3, 4, 30, 31, 32, 33, 34, 35, 1000, scratchBytes - 1, scratchBytes, scratchBytes + 1, scratchBytes + 3,
		scratchBytes + 4, 2 * scratchBytes, 2*scratchBytes + 5, len(data)}
	for name, encoding := range encodings {
		t.Run(name, func(t *testing.T) {
			for _, size := range sizes {
				text := encoding.EncodeToString(data[:size])
				for _, before := range []int{0, 1, 10, 40} {
					checkBase64(t, text, before)
				}
				checkBase64(t, text+"\n", 1)
				// A space, a junk character and the other alphabet at a place of its own.
				at := random.IntN(len(text))
				for _, c := range []string{" ", "\r\n", "!", "=", "-", "+", "\x00", "\xff"} {
					checkBase64(t, text[:at]+c+text[at:], 10)
				}
				checkBase64(t, text[:at], 10)
			}
		})
	}
	lines := regexp.MustCompile(".{1,76}").ReplaceAllString(base64.StdEncoding.EncodeToString(data), "$0\r\n")
	checkBase64(t, lines, 10)
}

func TestCutDataURI(t *testing.T) {
	cases := []struct{ name, text, want, err string }{
		{"none", "QUJD", "ABC", ""},
		{"usual", "data:image/jpeg;base64,QUJD", "ABC", ""},
		{"capitals and space", " DATA:image/jpeg;BASE64 , QUJD", "ABC", ""},
		{"space before the mark", "data:image/png; base64,QUJD", "ABC", ""},
		{"space everywhere", "data: image/png ;\tbase64 \n, QUJD", "ABC", ""},
		{"shorter than the scheme", "data", "u\xabZ", ""},
		{"no comma", "data:image/jpeg;base64QUJD", "", "without a comma"},
		{"not base64", "data:,QUJD", "", "not base64"},
		{"base64 not last", "data:image/jpeg;base64;x=y,QUJD", "", "not base64"},
		{"a second comma", "data:image/jpeg;base64,QU,JD", "", `unexpected "," at character 3`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := decodeInPlace(c.text, 5)
			if c.err == "" && (err != nil || string(got) != c.want) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func FuzzBase64(f *testing.F) {
	long := strings.Repeat("QUJDREVGR0hJSktMTU5P", chunk/20+3)
	for _, text := range []string{"", "QQ==", "QQ", "QUI=", "Q-_+", "QQ==\n", "=QQ=", "Q Q = =", long, long[:chunk] + "\n" + long, long + "QQ==", long[:chunk+1] + "-" + long} {
		f.Add(text, uint8(10))
	}
	f.Fuzz(func(t *testing.T, text string, before uint8) {
		if strings.HasPrefix(strings.ToLower(strings.TrimLeft(text, whiteSpace)), "data:") {
			decodeInPlace(text, int(before)) // must only not crash
			return
		}
		checkBase64(t, text, int(before))
	})
}

func BenchmarkDecodeImage(b *testing.B) {
	image := make([]byte, 700<<10)
	var scratch [scratchBytes]byte
	plain := []byte(base64.StdEncoding.EncodeToString(image))
	lines := bytes.ReplaceAll(plain, []byte("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
		[]byte("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"))
	dst := make([]byte, 0, len(image)+3)
	for name, text := range map[string][]byte{"plain": plain, "lines": lines} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(image)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decodeImage(dst, text, &scratch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
