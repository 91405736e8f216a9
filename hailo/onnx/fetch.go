package onnx

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"hailoclip/hailo"
)

// FetchVersion is the version of ONNX Runtime that Fetch installs.
const FetchVersion = "1.24.3"

// ErrDigest says that a downloaded file is not the one that it should be.
var ErrDigest = errors.New("wrong SHA-256")

// build is ONNX Runtime for one architecture, as it is published in two places.
type build struct {
	// The npm package onnxruntime-node, whose tarball holds the libraries of all systems.
	npmLibrary *regexp.Regexp // the library in the tarball
	library    string         // its SHA-256

	// The vendor's release page. Its library is another build of the same source. The digests are
	// those that several public build files pin.
	release        string // name of the tarball
	releaseDigest  string // SHA-256 of the tarball
	releaseBytes   int64
	releaseLibrary *regexp.Regexp
}

// builds by GOARCH.
var builds = map[string]build{
	"amd64": {
		npmLibrary:     regexp.MustCompile(`^package/bin/napi-v\d+/linux/x64/libonnxruntime\.so\.1$`),
		library:        "92ba8e44d31b80a34f5e805076a044122c3be1fffe0d88ed790de7267b0b2682",
		release:        "onnxruntime-linux-x64-" + FetchVersion + ".tgz",
		releaseDigest:  "4c436a280d650f8bf32c921a2bf4de7c42cc32884c51c90e47de991708bbb5a4",
		releaseBytes:   8_150_413,
		releaseLibrary: releaseLibrary,
	},
	"arm64": {
		npmLibrary:     regexp.MustCompile(`^package/bin/napi-v\d+/linux/arm64/libonnxruntime\.so\.1$`),
		library:        "33032cb5b91c12edbf028d7c69fa40a31848d66c0095448758af237d5e0b07db",
		release:        "onnxruntime-linux-aarch64-" + FetchVersion + ".tgz",
		releaseDigest:  "15100fb88b4c692cdd6bf2cca5f4a26a3806cebca8136de6681e2aba4b2ea033",
		releaseBytes:   7_166_580,
		releaseLibrary: releaseLibrary,
	},
}

var releaseLibrary = regexp.MustCompile(`^(\./)?onnxruntime-linux-[^/]+/lib/libonnxruntime\.so\.` + regexp.QuoteMeta(FetchVersion) + `$`)

// maxLibrary bounds what is unpacked; the libraries are 19 and 35 MB.
const maxLibrary = 128 << 20

// LibraryFile is the file in dir that Fetch writes for an architecture (a GOARCH).
func LibraryFile(dir, arch string) string {
	return filepath.Join(dir, fmt.Sprintf("libonnxruntime-%s-linux-%s.so", FetchVersion, arch))
}

// FetchOptions says what Fetch gets.
type FetchOptions struct {
	Dir  string // the folder where the library goes
	Arch string // "amd64" or "arm64"; "": this machine's

	// Progress, if not nil, is called now and then with the bytes downloaded so far and the bytes
	// in all, from the goroutine that called Fetch.
	Progress func(done, total int64)

	// ReleaseURL is where the vendor's release files lie; "": the release page.
	ReleaseURL string
}

// Fetch makes sure that ONNX Runtime is in the cache folder, and returns its path. It does
// nothing when the right file is there. It takes the library out of the npm package
// onnxruntime-node, or, where npm is missing or fails, out of the vendor's release. The digest is
// checked before the file gets its name, so that a broken or false download is never loaded.
func Fetch(ctx context.Context, o FetchOptions) (string, error) {
	if o.Arch == "" {
		o.Arch = runtime.GOARCH
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	b, ok := builds[o.Arch]
	if !ok {
		return "", fmt.Errorf("no ONNX Runtime for %q, only for amd64 and arm64", o.Arch)
	}
	return fetch(ctx, o, b)
}

func fetch(ctx context.Context, o FetchOptions, b build) (string, error) {
	path := LibraryFile(o.Dir, o.Arch)
	if installed(path, b) {
		return path, nil
	}
	if err := hailo.MakeFolder(o.Dir); err != nil {
		return "", err
	}
	errNPM := fetchNPM(ctx, o, b, path)
	if errNPM == nil {
		return path, nil
	}
	errNPM = fmt.Errorf("ONNX Runtime with npm: %w", errNPM)
	if ctx.Err() != nil || errors.Is(errNPM, ErrDigest) {
		return "", errNPM
	}
	if err := fetchRelease(ctx, o, b, path); err != nil {
		return "", errors.Join(errNPM, fmt.Errorf("ONNX Runtime from its release page: %w", err))
	}
	return path, nil
}

// installed says that the library is there and whole: it has the digest that we know, or the one
// that was written down when it came out of the vendor's tarball.
func installed(path string, b build) bool {
	digest, err := fileDigest(path)
	if err != nil {
		return false
	}
	if digest == b.library {
		return true
	}
	if _, err := ours(path, os.Geteuid()); err != nil {
		return false // nor can the note be believed
	}
	noted, _ := os.ReadFile(noteFile(path))
	return digest == strings.TrimSpace(string(noted))
}

// noteFile holds the digest of a library from the vendor's tarball.
func noteFile(path string) string { return path + ".sha256" }

// unpack writes the one file of a .tgz that matches name to path, and returns when the file is
// whole, synced and has its name. digest is what it must have; "": any, which is then noted.
func unpack(ctx context.Context, tgz, path string, name *regexp.Regexp, digest string) (err error) {
	archive, err := os.Open(tgz)
	if err != nil {
		return err
	}
	defer archive.Close()
	unzipped, err := gzip.NewReader(archive)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(tgz), err)
	}
	files := tar.NewReader(unzipped)
	for {
		header, err := files.Next()
		if err == io.EOF {
			return fmt.Errorf("%s holds no library (%v)", filepath.Base(tgz), name)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(tgz), err)
		}
		if header.Typeflag != tar.TypeReg || !name.MatchString(header.Name) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			continue
		}
		if header.Size > maxLibrary {
			return fmt.Errorf("%s: the library has %d bytes, more than %d", filepath.Base(tgz), header.Size, maxLibrary)
		}
		return install(files, path, digest)
	}
}

// install copies a library to path by way of a temporary file beside it.
func install(r io.Reader, path, digest string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".setup-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename: fails, as it should
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(f, h), r); err != nil {
		return err
	}
	got := hex.EncodeToString(h.Sum(nil))
	if digest != "" && got != digest {
		return fmt.Errorf("%w: the library has %s, must be %s", ErrDigest, got, digest)
	}
	if err := errors.Join(f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	if digest == "" {
		if err := note(path, got); err != nil {
			return err
		}
	}
	return os.Rename(f.Name(), path)
}

// note writes the note of a library by way of a temporary file, which follows no link.
func note(path, digest string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".setup-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename: fails, as it should
	_, err = f.WriteString(digest + "\n")
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), noteFile(path))
}

func fileDigest(path string) (string, error) {
	f, err := hailo.OpenRegular(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
