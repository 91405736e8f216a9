package doctor

import (
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"hailoclip/hailo/device"
	"hailoclip/hailo/model"
)

// checkModels judges the files of one part of the model together: one finding for each state.
func (e *exam) checkModels(part model.Part) {
	if e.env.Model == nil {
		return
	}
	m := e.env.Model.Manifest
	names := m.PartFiles(part)
	if names == nil {
		return
	}
	var damaged, missing, unknown []string
	recorded := map[string][]string{} // by day: held to the digest of that day, as the publisher's is not known
	version := ""                     // x.y of the HailoRT that the .hef files are for
	for _, f := range e.env.Model.Files {
		hef := strings.HasSuffix(f.Path, ".hef")
		switch {
		case !slices.Contains(names, f.Name):
			continue
		case f.Err != nil:
			damaged = append(damaged, f.Name+" ("+f.Err.Error()+")")
		case f.Bytes == 0:
			missing = append(missing, f.Name)
		case hef && !e.isHEF(f.Path):
			damaged = append(damaged, f.Name+" (not a HEF file)")
		case f.SHA256 == "":
			unknown = append(unknown, f.Name)
		case !f.Recorded.IsZero():
			day := f.Recorded.Format(time.DateOnly)
			recorded[day] = append(recorded[day], f.Name)
		}
		if zoo, ok := strings.CutPrefix(f.Zoo, "v"); ok && hef { // the zoo's releases are those of HailoRT, see model.ZooRelease
			version = device.Minor(zoo)
		}
	}
	title, pull := strings.ToUpper(string(part))+" files of "+m.Name, e.env.Own("models pull "+shell(m.Name))
	if damaged != nil {
		e.add(Fail, title+" are damaged: "+strings.Join(damaged, ", ")+".", pull)
	}
	if missing != nil { // where nothing else can serve, the start of the service is another finding
		var remedy []string
		if slices.ContainsFunc(missing, func(name string) bool { return !m.Made(name) }) {
			remedy = append(remedy, pull)
		}
		if slices.ContainsFunc(missing, m.Made) {
			remedy = append(remedy, e.env.Own("models build-text "+shell(m.Name)+" CHECKPOINT.safetensors"))
		}
		e.add(Warn, title+" are missing: "+strings.Join(missing, ", ")+".", remedy...)
	}
	if damaged != nil || missing != nil {
		return
	}
	if lib := e.Library(); version != "" && device.Major(lib) >= 5 && version != device.Minor(lib) {
		e.add(Warn, title+" are there, but for HailoRT "+version+"; installed is "+lib+". Most run all the same.", pull)
		return
	}
	what := title + " are there"
	if unknown != nil {
		what += "; without a known digest: " + strings.Join(unknown, ", ")
	}
	for _, day := range slices.Sorted(maps.Keys(recorded)) {
		what += "; unpinned, recorded on " + day + ": " + strings.Join(recorded[day], ", ")
	}
	e.add(OK, what+".")
}

// isHEF looks at the first bytes of a model file, where failed downloads have XML or nothing.
func (e *exam) isHEF(name string) bool {
	f, err := e.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	var magic [4]byte
	_, err = io.ReadFull(f, magic[:])
	return err == nil && string(magic[:]) == "\x01HEF"
}
