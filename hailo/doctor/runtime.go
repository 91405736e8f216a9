package doctor

import (
	"debug/elf"
	"path"
	"runtime"
	"slices"
	"strings"
)

const maxELF = 256 << 20 // bytes of a program or library that is looked into

// program is what an ELF file tells the dynamic loader.
type program struct {
	machine string   // "EM_AARCH64"
	soname  string   // of a library
	needed  []string // sonames of the libraries it asks for
}

// program reads an ELF file; false if it is none.
func (t tree) program(name string) (program, bool) {
	f, ok := t.open(name)
	if !ok {
		return program{}, false
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() > maxELF {
		return program{}, false
	}
	x, err := elf.NewFile(f)
	if err != nil {
		return program{}, false
	}
	soname, _ := x.DynString(elf.DT_SONAME)
	needed, _ := x.DynString(elf.DT_NEEDED)
	return program{x.Machine.String(), first(soname), needed}, true
}

// checkLibrary looks for libhailort.
func checkLibrary(e *exam) {
	var five []string
	for _, l := range e.libs {
		if numbers(l.version)[0] >= 5 {
			five = append(five, l.path)
		}
	}
	switch broken := e.brokenLibrary(); {
	case broken != "":
		e.add(Fail, broken+" is a folder: a container was started with a library that was not there.",
			"# give the container the host's libhailort.so of the driver's version\n# ("+orUnknown(e.module)+"), at the same path")
	case len(five) == 0:
		e.add(Fail, "HailoRT's library (libhailort.so) is not installed.", e.reinstall(libraryPackages))
	case len(five) > 1:
		e.add(Warn, "There is more than one libhailort: "+strings.Join(five, ", ")+".",
			"# remove those that are not of the driver's version ("+orUnknown(e.module)+")")
	default:
		e.add(OK, "HailoRT's library is "+five[0]+".", "")
	}
}

// brokenLibrary returns the path of a folder in the place of the library: what container engines
// make of a mount whose source is missing.
func (e *exam) brokenLibrary() string {
	for _, dir := range libraryDirs {
		for _, name := range e.t.list(dir, "libhailort.so*") {
			if e.t.isDir(dir + "/" + name) {
				return dir + "/" + name
			}
		}
	}
	return ""
}

// checkVersions compares what is loaded with what is on disk. HailoRT wants driver, library and
// chip software of the very same version.
func checkVersions(e *exam) {
	lib := e.library()
	name, onDisk := e.installed(driverPackages)
	switch {
	case lib == "": // said by checkLibrary
	case e.module == "":
		e.add(Info, "The loaded driver does not tell its version; the library is "+lib+".", "")
	case e.module != lib && onDisk == lib:
		e.add(Fail, "The loaded driver is "+e.module+", but driver package and library are "+lib+": the new driver has not been started.", coldStart)
	case e.module != lib:
		why := "HailoRT refuses different versions (status 76)"
		// The class moved in 5.3, and a library looks in one place only.
		if newer(e.module, "5.2.999") != newer(lib, "5.2.999") {
			why = "with these two, HailoRT finds no device and prints no error"
		}
		libName, _ := e.installed(libraryPackages)
		e.add(Fail, "The loaded driver is "+e.module+", the library "+lib+": "+why+".",
			remedy("# install both of one version", "sudo apt update", "sudo apt install "+libName+" "+name, coldStart))
	case onDisk != "" && onDisk != e.module:
		e.add(Warn, "Driver and library are "+lib+", but package "+name+" is "+onDisk+": they will not match after the next start.",
			"sudo apt update\nsudo apt install "+libraryPackages[0]+" "+name+"\n"+coldStart)
	default:
		e.add(OK, "Driver and library are both "+lib+".", "")
	}
}

const header = "/usr/include/hailo/hailort.hpp"

// checkHeaders looks for what the worker is compiled with. They come with the library.
func checkHeaders(e *exam) {
	switch {
	case e.t.exists(header):
		e.add(OK, "The headers to build the worker are in "+path.Dir(header)+".", "")
	case e.workerFits():
		e.add(Info, "The headers to build the worker are missing; the worker is there without them.", "")
	default:
		e.add(e.absent(), "The headers to build the worker are missing: "+header+".", e.reinstall(libraryPackages))
	}
}

// workerFits says whether the worker is there and finds its library.
func (e *exam) workerFits() bool {
	p, _ := e.t.program(e.env.Worker)
	v := versionAtEnd(p.hailort())
	return v != "" && slices.ContainsFunc(e.libs, func(l library) bool { return l.version == v })
}

// hailort returns the soname of the libhailort that a program asks for, "" if it asks for none.
func (p program) hailort() string {
	i := slices.IndexFunc(p.needed, func(n string) bool { return strings.HasPrefix(n, "libhailort.so") })
	if i < 0 {
		return ""
	}
	return p.needed[i]
}

// makeWorker is the remedy that builds the worker and puts it where the service looks: beside the
// program.
const makeWorker = "# in the source folder of hailo-clip:\nmake npu\nsudo install bin/hailo-clip-npu /usr/bin/"

// nativeMachine is how ELF files name the processor that this program was built for.
var nativeMachine = map[string]string{
	"amd64": elf.EM_X86_64.String(), "arm64": elf.EM_AARCH64.String(),
}[runtime.GOARCH]

// checkWorker looks whether the worker can start.
func checkWorker(e *exam) {
	file := e.env.Worker
	if file == "" || !e.t.exists(file) {
		e.add(e.absent(), strings.TrimSuffix("The worker hailo-clip-npu is not installed: "+file, ": ")+".", makeWorker)
		return
	}
	p, isELF := e.t.program(file)
	name := p.hailort()
	e.worker = versionAtEnd(name)
	switch {
	case !isELF:
		e.add(Fail, "The worker "+file+" is not a program.", makeWorker)
	case !e.t.executable(file):
		e.add(Fail, "The worker "+file+" may not be executed.", "sudo chmod 755 "+shell(file))
	case p.machine != nativeMachine:
		e.add(Fail, "The worker "+file+" is for another kind of processor ("+p.machine+").", makeWorker)
	case name == "":
		e.add(Fail, "The worker "+file+" does not use libhailort, so it cannot drive the chip.", makeWorker)
	case e.worker != "" && e.library() == "":
		e.add(Info, "The worker "+file+" was built for libhailort "+e.worker+", which has to be installed.", "")
	case e.worker != "" && !e.workerFits():
		e.add(Fail, "The worker "+file+" was built for libhailort "+e.worker+", but "+e.library()+" is installed: it cannot start.", makeWorker)
	default:
		e.add(OK, "The worker "+file+" was built for "+name+".", "")
	}
}

// executable says whether anybody may run the file.
func (t tree) executable(name string) bool {
	info, ok := t.stat(name)
	return ok && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}
