package main

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"hailoclip/api/stream/source"
)

// imageFiles are the images found for the names of files and folders that a command was given.
type imageFiles struct {
	names   []string       // files, or - for standard input
	skipped map[string]int // files in folders that are no images, by suffix, and links
	failed  int            // folders that could not be read
}

// findImages takes names of files as they are. A folder stands for the images in it and in the folders below, in the order of
// their names: img2 before img10. In a folder, it follows no links, knows images by their suffix, and ignores what begins with a
// dot. It complains of a folder that cannot be read, and counts it.
func findImages(named []string) imageFiles {
	found := imageFiles{skipped: map[string]int{}}
	for _, name := range named {
		if info, err := os.Stat(name); name != "-" && err == nil && info.IsDir() {
			found.addFolder(name)
		} else {
			found.names = append(found.names, name) // what is wrong with it is told when it is read
		}
	}
	return found
}

func (f *imageFiles) addFolder(folder string) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		complain("hailo-clip: %v", err)
		f.failed++
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return source.Natural(a.Name(), b.Name()) })
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), "."):
		case e.IsDir():
			f.addFolder(path)
		case e.Type().IsRegular() && source.IsImage(e.Name()):
			f.names = append(f.names, path)
		case e.Type().IsRegular():
			f.skipped[strings.ToLower(filepath.Ext(e.Name()))]++
		case e.Type()&fs.ModeSymlink != 0:
			f.skipped["links"]++
		default:
			f.skipped["pipes, sockets and devices"]++
		}
	}
}

// tellSkipped complains of what else is in the folders.
func (f *imageFiles) tellSkipped() {
	if len(f.skipped) == 0 {
		return
	}
	var kinds []string
	all := 0
	for _, kind := range slices.Sorted(maps.Keys(f.skipped)) {
		n := f.skipped[kind]
		all += n
		if kind == "" {
			kind = "without suffix"
		}
		kinds = append(kinds, fmt.Sprintf("%d %s", n, printable(kind)))
	}
	const most = 10
	if len(kinds) > most {
		kinds = append(kinds[:most], "...")
	}
	complain("hailo-clip: %d files in the folders are not looked at: %s", all, strings.Join(kinds, ", "))
}
