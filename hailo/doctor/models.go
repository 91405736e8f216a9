package doctor

import (
	"io"
	"maps"
	"slices"
	"strings"
)

// ModelState is the state of one model file.
type ModelState string

// The states of a model file.
const (
	ModelOK         ModelState = "ok"         // there, and of the known digest
	ModelUnverified ModelState = "unverified" // there; no digest is known, or none was computed
	ModelMissing    ModelState = "missing"
	ModelDamaged    ModelState = "damaged" // of another digest or size, or unreadable
)

// ModelCheck is what the caller found about one file of the chosen model.
type ModelCheck struct {
	Model    string     // name of the model: "clip-vit-b-32"
	Backend  string     // that needs the file: "npu" or "cpu"
	Name     string     // name of the file
	Path     string     // where it is, looked up below Root; "" when missing
	State    ModelState //
	Detail   string     // why damaged; may be ""
	Recorded string     // day on which the digest was recorded that it is held to, as the publisher's is not known; "" where it is
	HailoRT  string     // a .hef: x.y of the HailoRT it was compiled for; "" if unknown
}

func checkNPUModels(e *exam) { e.checkModels("npu") }

func checkCPUModels(e *exam) { e.checkModels("cpu") }

// checkModels judges the files of one backend together: one finding for each state.
func (e *exam) checkModels(backend string) {
	by, unpinned := map[ModelState][]string{}, map[string][]string{}
	model, version := "", ""
	for _, m := range e.models {
		if m.Backend != backend {
			continue
		}
		model = m.Model
		name := m.Name
		if m.State != ModelMissing && strings.HasSuffix(m.Path, ".hef") {
			if m.State != ModelDamaged && !e.isHEF(m.Path) {
				m.State, m.Detail = ModelDamaged, "not a HEF file"
			}
			if m.HailoRT != "" {
				version = m.HailoRT
			}
		}
		if m.Detail != "" {
			name += " (" + m.Detail + ")"
		}
		by[m.State] = append(by[m.State], name)
		if m.Recorded != "" {
			unpinned[m.Recorded] = append(unpinned[m.Recorded], m.Name)
		}
	}
	if model == "" {
		return
	}
	title, pull := strings.ToUpper(backend)+" files of "+model, e.env.Own("models pull "+shell(model))
	complete := true
	if files := by[ModelDamaged]; files != nil {
		complete = false
		e.add(Fail, title+" are damaged: "+strings.Join(files, ", ")+".", pull)
	}
	if files := by[ModelMissing]; files != nil {
		complete = false
		e.add(e.missingModel(backend), title+" are missing: "+strings.Join(files, ", ")+".", pull)
	}
	if !complete {
		return
	}
	lib := e.library()
	if version != "" && numbers(lib)[0] >= 5 && minor(version+".0") != minor(lib) {
		e.add(Warn, title+" are there, but for HailoRT "+version+"; installed is "+lib+". Most run all the same.", pull)
		return
	}
	what := title + " are there"
	if files := by[ModelUnverified]; files != nil {
		what += "; without a known digest: " + strings.Join(files, ", ")
	}
	for _, day := range slices.Sorted(maps.Keys(unpinned)) {
		what += "; unpinned, recorded on " + day + ": " + strings.Join(unpinned[day], ", ")
	}
	e.add(OK, what+".", "")
}

// missingModel is the level of missing files: bad if nothing else can serve.
func (e *exam) missingModel(backend string) Level {
	if backend == "npu" {
		return e.absent()
	}
	if e.env.Backend == "npu" || e.env.Backend == "sim" || e.reached >= hasNode {
		return Warn // only no fallback
	}
	return Fail
}

// isHEF looks at the first bytes of a model file, where failed downloads have XML or nothing.
func (e *exam) isHEF(name string) bool {
	f, ok := e.t.open(name)
	if !ok {
		return false
	}
	defer f.Close()
	var magic [4]byte
	_, err := io.ReadFull(f, magic[:])
	return err == nil && string(magic[:]) == "\x01HEF"
}
