package client

import (
	"bytes"
	"fmt"
	"net/http"
)

// Image is an image: compressed, as a file of it is, or with Frame the pixels themselves, which cost the service no
// decoding. Data is only read, until the call returns.
type Image struct {
	Data  []byte
	Frame *Frame
}

// Frame says how the pixels of an image lie in its bytes.
type Frame struct {
	Format        string // rgb24, bgr24, gray8, nv12, i420 or yuyv
	Width, Height int
	Stride        int    // bytes from row to row; 0: rows follow each other without a gap
	Matrix        string // of the YUV formats: bt601 or bt709; "": bt601
	Range         string // of the YUV formats: limited or full; "": limited
}

// String is the header X-Frame-Format.
func (f Frame) String() string {
	text := fmt.Sprintf("%s; %dx%d", f.Format, f.Width, f.Height)
	if f.Stride != 0 {
		text += fmt.Sprintf("; stride=%d", f.Stride)
	}
	if f.Matrix != "" {
		text += "; matrix=" + f.Matrix
	}
	if f.Range != "" {
		text += "; range=" + f.Range
	}
	return text
}

const (
	headerFrame = "X-Frame-Format"
	mediaBytes  = "application/octet-stream"
	mediaJSON   = "application/json"
)

// headers are those that say what the image is.
func (i Image) headers() map[string]string {
	if i.Frame != nil {
		return map[string]string{"Content-Type": mediaBytes, headerFrame: i.Frame.String()}
	}
	return map[string]string{"Content-Type": i.media()}
}

// media is the media type of a compressed image, by its first bytes. What is not known is sent as a JPEG: the service
// looks at the bytes, too, and says what it does not read.
func (i Image) media() string {
	switch media := http.DetectContentType(i.Data); media {
	case "image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp":
		return media
	}
	if bytes.HasPrefix(i.Data, []byte("II*\x00")) || bytes.HasPrefix(i.Data, []byte("MM\x00*")) {
		return "image/tiff"
	}
	return "image/jpeg"
}
