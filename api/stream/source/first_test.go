package source

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestFirst takes one frame of each kind of address, whose memory is all that is lent.
func TestFirst(t *testing.T) {
	image := jpegOf(1, 60, 40)
	var asked atomic.Int32
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		switch r.URL.Path {
		case "/stream":
			for r.Context().Err() == nil {
				writeStream(w, image)
			}
		case "/image":
			w.Write(image)
		case "/text":
			w.Write([]byte("no image"))
		case "/silence":
			<-r.Context().Done()
		default:
			http.NotFound(w, r)
		}
	})
	folder := t.TempDir()
	file := filepath.Join(folder, "a.jpg")
	if err := os.WriteFile(file, image, 0o600); err != nil {
		t.Fatal(err)
	}
	for address, code := range map[string]string{
		url + "/stream": "", url + "/image": "", file: "", folder: "", // each of which has the image
		url + "/text": codeCodec, url + "/none": codeNotFound, filepath.Join(folder, "none.jpg"): codeNotFound, t.TempDir(): codeNotFound,
		"ftp://127.0.0.1/": codeNotAllowed, "http://192.168.1.20/": codeNotAllowed,
	} {
		asked.Store(0)
		lent := 0
		o := options()
		o.Local = true
		o.Buffers = &Buffers{
			Get: func(size int) ([]byte, error) { lent++; return make([]byte, 0, size), nil },
			Put: func([]byte) { lent-- },
		}
		frame, err := First(t.Context(), address, o)
		held := 0
		if code == "" {
			held = 1
		}
		if codeOf(err) != code || (err == nil) != (code == "") || code == "" && !bytes.Equal(frame.Image, image) || lent != held || asked.Load() > 1 {
			t.Errorf("%s: %d bytes, %v, %d lent, asked %d times", address, len(frame.Image), err, lent, asked.Load())
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	o, enough := options(), errors.New("enough")
	o.Buffers = &Buffers{Get: func(size int) ([]byte, error) { return make([]byte, 0, size), nil }, Put: func([]byte) {}}
	ended := make(chan error)
	go func() {
		_, err := First(ctx, url+"/silence", o)
		ended <- err
	}()
	cancel(enough)
	if err := <-ended; !errors.Is(err, enough) {
		t.Error(err)
	}
}

func TestCheckNamed(t *testing.T) {
	for address, want := range map[string]string{
		"http://user:password@192.168.1.20/snap.jpg": "", "https://a/": "", "rtsp://a/1": "", "/dev/video0": "", "/var/lib/motion/last.jpg": "",
		"": "begins with", "-": "begins with", "a.jpg": "begins with", "file:///a.jpg": "no kind of source", "http://": "no host",
		"http://user:***@a/": "***", "http://a/ b": "white space",
	} {
		err := CheckNamed(address)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
	text, err := yaml.Marshal(struct{ Sources Named }{Named{"porch": "http://user:hush@a/snap?token=secret&x=1", "desk": "/dev/video0"}})
	if got := string(text); err != nil || strings.Contains(got, "hush") || strings.Contains(got, "secret") || !strings.Contains(got, "desk: /dev/video0") {
		t.Errorf("%s, %v", text, err)
	}
}
