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

	"hailoclip/hailo/fetch"
	"hailoclip/hailo/safefile"
)

// FetchVersion is the version of ONNX Runtime that Fetch installs.
const FetchVersion = "1.24.3"

// releaseURL is the vendor's release page.
const releaseURL = "https://github.com/microsoft/onnxruntime/releases/download/v" + FetchVersion

// build is ONNX Runtime for one architecture: the file of the vendor's release. The digests of
// releases are those that several public build files pin.
type build struct {
	release string // name of the tarball
	digest  string // its SHA-256
	bytes   int64
	library string // SHA-256 of the library in the npm package onnxruntime-node, which is another build of the same source
}

// builds by GOARCH. The Makefile reads the digests of the libraries here.
var builds = map[string]build{
	"amd64": {
		release: "onnxruntime-linux-x64-" + FetchVersion + ".tgz",
		digest:  "4c436a280d650f8bf32c921a2bf4de7c42cc32884c51c90e47de991708bbb5a4",
		bytes:   8_150_413,
		library: "92ba8e44d31b80a34f5e805076a044122c3be1fffe0d88ed790de7267b0b2682",
	},
	"arm64": {
		release: "onnxruntime-linux-aarch64-" + FetchVersion + ".tgz",
		digest:  "15100fb88b4c692cdd6bf2cca5f4a26a3806cebca8136de6681e2aba4b2ea033",
		bytes:   7_166_580,
		library: "33032cb5b91c12edbf028d7c69fa40a31848d66c0095448758af237d5e0b07db",
	},
}

var libraryInRelease = regexp.MustCompile(`^(\./)?onnxruntime-linux-[^/]+/lib/libonnxruntime\.so\.` + regexp.QuoteMeta(FetchVersion) + `$`)

// maxLibrary bounds what is unpacked; the libraries are 19 and 35 MB.
const maxLibrary = 128 << 20

// DefaultLibraryDir is where the library is fetched to: lib/ in the user's cache folder, or
// /var/lib/hailo-clip/lib for a service without a home.
func DefaultLibraryDir() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "/var/lib/hailo-clip/lib"
	}
	return filepath.Join(cache, "hailo-clip", "lib")
}

// LibraryFile is the file in dir that Fetch writes for an architecture (a GOARCH).
func LibraryFile(dir, arch string) string {
	return filepath.Join(dir, fmt.Sprintf("libonnxruntime-%s-linux-%s.so", FetchVersion, arch))
}

// FetchOptions says what Fetch gets. The zero value is right for this machine.
type FetchOptions struct {
	Dir  string // "": DefaultLibraryDir
	Arch string // "amd64" or "arm64"; "": this machine's

	// Progress, if not nil, is called now and then with the bytes downloaded so far and the bytes
	// in all, from the goroutine that called Fetch.
	Progress func(done, total int64)

	// ReleaseURL is where the vendor's release files lie; "": the release page.
	ReleaseURL string
}

// Fetch makes sure that ONNX Runtime is in the folder, and returns its path. It does nothing when a
// published library is there, else it takes the one in the vendor's release. A download that breaks
// off is kept, and the next Fetch goes on from there; nothing of it is unpacked before its digest is
// right. Errors: those of fetch.Download, or what is wrong with the folder.
func Fetch(ctx context.Context, o FetchOptions) (string, error) {
	if o.Dir == "" {
		o.Dir = DefaultLibraryDir()
	}
	if o.Arch == "" {
		o.Arch = runtime.GOARCH
	}
	if o.ReleaseURL == "" {
		o.ReleaseURL = releaseURL
	}
	b, ok := builds[o.Arch]
	if !ok {
		return "", fmt.Errorf("no ONNX Runtime for %q, only for amd64 and arm64", o.Arch)
	}
	return b.fetch(ctx, o)
}

func (b build) fetch(ctx context.Context, o FetchOptions) (string, error) {
	path := LibraryFile(o.Dir, o.Arch)
	if b.installed(ctx, path) {
		return path, nil
	}
	if err := safefile.MakeFolder(o.Dir); err != nil {
		return "", err
	}
	unlock, err := safefile.Lock(o.Dir + "/.") // of the folder, where o.Dir is a link too
	if errors.Is(err, safefile.ErrLocked) {
		err = fmt.Errorf("%w: another process is downloading it", err)
	}
	if err != nil {
		return "", err
	}
	defer unlock()
	part := filepath.Join(o.Dir, b.release+".part")
	d := fetch.Download{URL: o.ReleaseURL + "/" + b.release, Part: part, Bytes: b.bytes, SHA256: b.digest, Progress: o.Progress}
	if _, err := d.Run(ctx); err != nil {
		return "", fmt.Errorf("ONNX Runtime: %w", err)
	}
	return path, errors.Join(unpack(part, path), fetch.Remove(part))
}

// installed says that the library is there and whole: it has a digest that we know, or the one that
// was written down when it was unpacked.
func (b build) installed(ctx context.Context, path string) bool {
	digest, err := safefile.SHA256(ctx, path)
	if err != nil {
		return false
	}
	if digest == b.library {
		return true
	}
	if _, err := ours(path, os.Geteuid()); err != nil {
		return false // nor can the note be believed
	}
	noted, _ := os.ReadFile(digestFile(path))
	return digest == strings.TrimSpace(string(noted))
}

// digestFile holds the digest of a library that was unpacked.
func digestFile(path string) string { return path + ".sha256" }

// unpack writes the library in a release's tarball to path, and its digest beside it.
func unpack(tgz, path string) error {
	archive, err := safefile.OpenRegular(tgz)
	if err != nil {
		return err
	}
	defer archive.Close()
	unzipped, err := gzip.NewReader(archive)
	if err != nil {
		return fmt.Errorf("%s: %w", tgz, err)
	}
	files := tar.NewReader(unzipped)
	for {
		header, err := files.Next()
		if err == io.EOF {
			return fmt.Errorf("%s holds no library (%v)", tgz, libraryInRelease)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", tgz, err)
		}
		if header.Typeflag != tar.TypeReg || !libraryInRelease.MatchString(header.Name) {
			continue
		}
		if header.Size > maxLibrary {
			return fmt.Errorf("%s: the library has %d bytes, more than %d", tgz, header.Size, maxLibrary)
		}
		h := sha256.New()
		if err := safefile.Replace(path, io.TeeReader(files, h)); err != nil {
			return err
		}
		return safefile.Replace(digestFile(path), strings.NewReader(hex.EncodeToString(h.Sum(nil))+"\n"))
	}
}
