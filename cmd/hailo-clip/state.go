package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"hailoclip/hailo/device"
)

// The state folder holds models/, lib/ with ONNX Runtime, and the prompt cache, which text_embedding.cache_file
// names. What is in it is made when it is needed.

// stateDir is the state folder; it need not exist yet. It is, in this order, that of --state-dir or
// HAILO_CLIP_STATE_DIR, that of the systemd unit, or one in the user's cache folder.
func (g *globals) stateDir() (string, error) {
	if g.StateDir != "" {
		return filepath.Abs(g.StateDir)
	}
	if dir := unitStateDir(); dir != "" {
		return dir, nil
	}
	dir, err := userStateDir()
	if err != nil {
		err = fmt.Errorf("no folder for cache and models: %w; give one with --state-dir", err)
	}
	return dir, err
}

// unitStateDir is the folder that systemd gives to a unit with StateDirectory=, which may be a list; "" outside of one.
func unitStateDir() string {
	first, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	return first
}

func userStateDir() (string, error) {
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "hailo-clip"), err
}

func modelsDir(state string) string { return filepath.Join(state, "models") }

// libraryDir is where "setup" puts ONNX Runtime.
func libraryDir(state string) string { return filepath.Join(state, "lib") }

// libraryDirs are where it is looked for: in the state folder, then in those where "setup" puts it by itself.
func libraryDirs(state string) []string {
	dirs := []string{libraryDir(state)}
	if user, err := userStateDir(); err == nil {
		dirs = append(dirs, libraryDir(user))
	}
	return append(dirs, libraryDir(device.ServiceState))
}
