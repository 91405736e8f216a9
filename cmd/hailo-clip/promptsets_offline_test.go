package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hailoclip/cache/sets"
)

// Sets can be taken out of the file beside no service, and those that are whole out of a damaged one.
func TestExportOffline(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	path := filepath.Join(state, sets.FileName)
	export := func(args ...string) result {
		return runProgram(t, command(state, append([]string{"prompt-sets", "export", "--offline"}, args...)...))
	}
	export().expect(t, exitFailed, path+": no such file")
	s := must(sets.Open(path))
	for _, name := range []string{"door", "gate"} {
		d := must(sets.ParseJSON([]byte(`{"labels": [{"name": "open", "prompts": ["an open ` + name + `"]}]}`)))
		if err := s.Put(t.Context(), sets.Record{Name: name, Definition: d, Changed: time.Now()}, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	export().expect(t, exitFailed, "locked by a running service")
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	export().expect(t, exitOK, "prompt_sets:", "door:", "- an open door", "gate:", "- an open gate")
	export("gate", "--format", "json").expect(t, exitOK, `{"prompt_sets":{"gate":{"labels":[{"name":"open","prompts":["an open gate"]`)
	in, left, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	defer left.Close()
	cmd := command(state, "prompt-sets", "export", "--offline") // as before "| head -1"
	cmd.Stdout = left
	if r := runProgram(t, cmd); r.code != exitPipe || r.stderr != "" {
		t.Errorf("nobody reads: exit code %d: %s", r.code, r.stderr)
	}
	export("wall").expect(t, exitFailed, "wall: there is no such prompt set")
	export("--url", "http://127.0.0.1:1").expect(t, exitUsage, "--offline is of no use with --url")

	file := must(os.ReadFile(path))
	file[bytes.LastIndex(file, []byte("an open gate"))]++
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	export().expect(t, exitFailed, "- an open door", "gate: damaged: prompt set gate: label 0 is lost")
	if !bytes.Equal(file, must(os.ReadFile(path))) {
		t.Error("the file was changed")
	}
}
