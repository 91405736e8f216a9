// Package worker_test compiles hailo-clip-npu (folder src) against a HailoRT of our own with a
// simulated chip (testdata/include), plain and under the sanitizers, and plays its host.
package worker_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hailoclip/hailo/internal/assert"
)

// How the worker ends; see channel.h.
const (
	exitDone      = 0
	exitFailed    = 1
	exitViolation = 2
	exitStuck     = 3
)

// patience is how long a test waits for what must come: it guards against hanging, however slow the machine.
const patience = 5 * time.Minute

// A build is one way to compile the worker. It is compiled when the first test wants it.
type build struct {
	name  string
	flags []string

	once sync.Once
	err  error
}

// sanitize compiles fast and still finds everything; the flags of "plain" are those of the Makefile.
var (
	sanitize = []string{"-Og", "-g1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"}
	builds   = []*build{
		{name: "plain", flags: []string{"-O2"}},
		{name: "address", flags: append([]string{"-fsanitize=address,undefined"}, sanitize...)},
		{name: "thread", flags: append([]string{"-fsanitize=thread"}, sanitize...)},
	}
	buildFolder string
)

func TestMain(m *testing.M) {
	buildFolder = assert.Value(os.MkdirTemp("", "hailo-clip-npu-test"))
	code := m.Run()
	os.RemoveAll(buildFolder)
	os.Exit(code)
}

// sources are the files that the Makefile compiles. Without a compiler the test is skipped.
func sources(t testing.TB) []string {
	t.Helper()
	if _, err := exec.LookPath("g++"); err != nil {
		assert.MustTrue(t, os.Getenv("HAILO_TEST_REQUIRE_NATIVE") != "1", "no g++, and HAILO_TEST_REQUIRE_NATIVE=1")
		t.Skip("no g++: the worker is not tested")
	}
	// Go's test cache sees only what the test itself opens.
	for _, pattern := range []string{"src/*", "testdata/include/hailo/*"} {
		for _, f := range assert.Value(filepath.Glob(pattern)) {
			assert.Must(t, assert.Err(os.ReadFile(f)))
		}
	}
	files := assert.Value(filepath.Glob("src/*.cpp"))
	assert.MustTrue(t, len(files) > 0, "no sources")
	return files
}

// compile runs the compiler with the flags of every build.
func compile(args ...string) error {
	args = append([]string{"-std=c++17", "-Wall", "-Wextra", "-Werror", "-pthread", "-Itestdata/include", "-Isrc"}, args...)
	if out, err := exec.Command("g++", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("g++ %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (b *build) program(t testing.TB) string {
	t.Helper()
	files, path := sources(t), filepath.Join(buildFolder, b.name)
	b.once.Do(func() { b.err = compile(append(append(files, "-o", path), b.flags...)...) })
	assert.Must(t, b.err)
	return path
}

// eachBuild runs a test with every build of the worker.
func eachBuild(t *testing.T, test func(t *testing.T, b *build)) {
	t.Parallel()
	for _, b := range builds {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			test(t, b)
		})
	}
}

// eachWorker runs a test with every build of the worker, on a chip with these options, when it is ready.
func eachWorker(t *testing.T, fake string, test func(h *host, book *book)) {
	eachBuild(t, func(t *testing.T, b *build) {
		h := start(t, b, fake)
		test(h, h.ready())
	})
}
