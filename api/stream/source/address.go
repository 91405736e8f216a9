package source

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

const maxAddress = 2048

// address is one that has been looked at.
type address struct {
	text string
	url  *url.URL // of what is not local
}

// ports are the schemes that are pulled, and where they go without a port.
var ports = map[string]string{"http": "80", "https": "443", "rtsp": "554", "rtsps": "322"}

// parse returns what is wrong with an address, as an *Error.
func parse(text string, o Options) (address, error) {
	a := address{text: text}
	if scheme, _, found := strings.Cut(text, "://"); !found || strings.ContainsAny(scheme, "/.") {
		if !o.Local {
			return a, fail(codeNotAllowed, "a source begins with http://, https://, rtsp:// or rtsps://")
		}
		return a, a.checkLocal()
	}
	if len(text) > maxAddress || strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		return a, fail(codeNotAllowed, "a source has at most %d characters, none of them white space", maxAddress)
	}
	u, err := url.Parse(text)
	if err != nil { // its text has the address
		return a, fail(codeNotAllowed, "the source is no address that can be read")
	}
	if ports[u.Scheme] == "" {
		return a, fail(codeNotAllowed, "%.20q is no kind of source: http, https, rtsp, rtsps", u.Scheme)
	}
	if u.Hostname() == "" || u.Opaque != "" {
		return a, fail(codeNotAllowed, "the source has no host")
	}
	u.Fragment, u.RawFragment = "", ""
	a.url = u
	if err := o.Allowed.Check(u.Hostname(), a.port()); err != nil {
		return a, &Error{codeNotAllowed, err}
	}
	return a, nil
}

func (a address) checkLocal() error {
	if a.text == "-" || a.device() {
		return nil
	}
	switch info, err := os.Stat(a.text); {
	case errors.Is(err, fs.ErrNotExist):
		return fail(codeNotFound, "%s: there is no such file", a.text)
	case err != nil:
		return fail(codeUnavailable, "%w", err)
	case !info.IsDir() && !info.Mode().IsRegular():
		return fail(codeNotAllowed, "%s is neither a file nor a folder", a.text)
	}
	return nil
}

func (a address) device() bool { return strings.HasPrefix(filepath.Clean(a.text), "/dev/video") }

func (a address) live() bool { return a.url != nil || a.device() }

// port is where the address goes.
func (a address) port() string {
	if p := a.url.Port(); p != "" {
		return p
	}
	return ports[a.url.Scheme]
}

// IsImage says whether a file is an image by its name.
func IsImage(name string) bool {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff":
		return true
	}
	return false
}

func (a address) opener(o Options) opener {
	ext := strings.ToLower(filepath.Ext(a.text))
	switch {
	case a.url != nil && strings.HasPrefix(a.url.Scheme, "http"):
		return newHTTP(a, o).read
	case a.url != nil:
		return ffmpeg{a}.read
	case a.text == "-":
		return readStdin
	case ext == ".mjpeg", ext == ".mjpg":
		return a.readMJPEG
	case a.device():
		return ffmpeg{a}.read
	}
	if info, err := os.Stat(a.text); err == nil && info.IsDir() {
		return a.readFolder
	} else if IsImage(a.text) {
		return a.readImage
	}
	return ffmpeg{a}.read
}

// Live says whether an address is that of something live, of which frames may be lost, and not of files.
func Live(text string) bool {
	scheme, _, found := strings.Cut(text, "://")
	return found && ports[strings.ToLower(scheme)] != "" || address{text: text}.device()
}

// Check says what is wrong with an address that Run would refuse (*Error); not whether a name resolves to what is allowed.
func Check(text string, o Options) error {
	_, err := parse(text, o)
	return err
}

const masked = "***"

var (
	userinfo = regexp.MustCompile(`(://[^/@:\s]*):[^/\s]*@`)
	secrets  = regexp.MustCompile(`(?i)([?&;][^=&;?\s]*(?:pass|pwd|token|secret|key|auth|sig)[^=&;?\s]*=)[^&;#\s]*`)
)

// Mask returns the address without the password and what else is a secret by its name; also one that cannot be read.
func Mask(text string) string {
	text = userinfo.ReplaceAllString(text, "$1:"+masked+"@")
	return secrets.ReplaceAllString(text, "${1}"+masked)
}

// scrub removes the secrets of the address from a text that others have written, and makes a short line of it.
func (a address) scrub(text string) string {
	if a.url != nil {
		text = strings.ReplaceAll(text, a.text, Mask(a.text))
		if password, ok := a.url.User.Password(); ok && password != "" {
			for _, p := range []string{password, url.QueryEscape(password), url.PathEscape(password), strings.TrimPrefix(url.UserPassword("", password).String(), ":")} {
				text = strings.ReplaceAll(text, p, masked)
			}
		}
		for _, values := range a.url.Query() {
			for _, v := range values {
				if len(v) > 3 && strings.Contains(Mask(a.text), masked) && !strings.Contains(Mask(a.text), v) {
					text = strings.ReplaceAll(text, v, masked)
				}
			}
		}
	}
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(Mask(text), "?"))
	const most = 300
	if text = strings.TrimSpace(text); len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}
