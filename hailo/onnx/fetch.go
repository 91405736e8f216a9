package onnx

import (
	"archive/tar"
	"cmp"
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

// LibraryFile is the file in dir that Fetch writes for an architecture (a GOARCH).
func LibraryFile(dir, arch string) string {
	return filepath.Join(dir, fmt.Sprintf("libonnxruntime-%s-linux-%s.so", FetchVersion, arch))
}

// Fetch makes sure that ONNX Runtime for arch ("amd64" or "arm64"; "": this machine's) is in dir, and
// returns its path. It does nothing when a published library is there, else it takes the one in the
// vendor's release. A download that breaks off is kept, and the next Fetch goes on from there; nothing
// of it is unpacked before its digest is right. progress, if not nil, hears often of the bytes there and
// in all. Errors: those of fetch.Download, or what is wrong with the folder.
func Fetch(ctx context.Context, dir, arch string, progress func(done, total int64)) (string, error) {
	arch = cmp.Or(arch, runtime.GOARCH)
	b, ok := builds[arch]
	if !ok {
		return "", fmt.Errorf("no ONNX Runtime for %q, only for amd64 and arm64", arch)
	}
	path := LibraryFile(dir, arch)
	return path, b.fetch(ctx, releaseURL, path, progress)
}

func (b build) fetch(ctx context.Context, url, path string, progress func(done, total int64)) error {
	if b.installed(ctx, path) {
		return nil
	}
	dir := filepath.Dir(path)
	if err := safefile.MakeFolder(dir); err != nil {
		return err
	}
	unlock, err := safefile.Lock(dir + "/.") // of the folder, where dir is a link too
	if errors.Is(err, safefile.ErrLocked) {
		err = fmt.Errorf("%w: another process is downloading it", err)
	}
	if err != nil {
		return err
	}
	defer unlock()
	part := filepath.Join(dir, b.release+".part")
	d := fetch.Download{URL: url + "/" + b.release, Part: part, Bytes: b.bytes, SHA256: b.digest, Progress: progress}
	if _, err := d.Run(ctx); err != nil {
		return fmt.Errorf("ONNX Runtime: %w", err)
	}
	return errors.Join(unpack(part, path), fetch.Remove(part))
}

// installed says that the library is there and whole: it has a digest that we know, or the one that
// was recorded when it was unpacked.
func (b build) installed(ctx context.Context, path string) bool {
	digest, err := safefile.SHA256(ctx, path)
	if err != nil {
		return false
	}
	if digest == b.library {
		return true
	}
	if _, err := ours(path, os.Geteuid()); err != nil {
		return false // then the recorded digest proves nothing either
	}
	recorded, _ := os.ReadFile(digestFile(path))
	return digest == strings.TrimSpace(string(recorded))
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
