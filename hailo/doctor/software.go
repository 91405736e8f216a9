package doctor

import (
	"maps"
	"path"
	"slices"
	"strings"

	"hailoclip/hailo/device"
)

// oldStack returns what is there of HailoRT 4, which is for Hailo-8 only: packages by name, and a list for a person.
func (e *exam) oldStack() (packages, evidence []string) {
	for _, name := range slices.Sorted(maps.Keys(e.packages)) {
		four := device.Major(e.packages[name]) == 4 && slices.Contains([]string{"hailort", "hailort-pcie-driver", "python3-hailort"}, name)
		// hailo-all has a version of its own that says nothing about the runtime.
		if four || name == "hailo-all" || name == "hailofw" {
			packages, evidence = append(packages, name), append(evidence, "package "+name+" "+e.packages[name])
		}
	}
	evidence = append(evidence, e.libraries(4, 4)...)
	if e.IsDir("/sys/module/hailo_pci") && len(e.PCI) == 1 {
		evidence = append(evidence, "the loaded module hailo_pci")
	}
	return packages, evidence
}

// libraries returns where libhailort of some major versions is.
func (e *exam) libraries(least, most int) (paths []string) {
	for _, l := range e.Libraries {
		if v := device.Major(l.Version); v >= least && v <= most {
			paths = append(paths, l.Path)
		}
	}
	return paths
}

func checkStack(e *exam) {
	packages, old := e.oldStack()
	purge := ""
	if len(packages) > 0 {
		purge = "sudo apt purge " + strings.Join(packages, " ")
	}
	_, driver := e.installed(driverPackages)
	name, v := e.installed(libraryPackages)
	isNew := max(device.Major(driver), device.Major(v)) >= 5 || e.Loaded || len(e.ModuleFiles(e.Kernel)) > 0 || e.libraries(5, 1e6) != nil
	if isNew {
		e.reached = stack
	}
	switch {
	case isNew && len(old) > 0:
		e.add(Warn, "HailoRT 5 is installed, but something of HailoRT 4, which is for Hailo-8, is left: "+strings.Join(old, ", ")+".",
			"# removing it can delete the firmware too, so reinstall the driver after", purge,
			"sudo apt install --reinstall "+driverPackages[0], coldStart)
	case len(old) > 0:
		e.add(Fail, "The installed HailoRT is for Hailo-8 and does not know this chip: "+strings.Join(old, ", ")+".", purge, e.installStack())
	case !isNew:
		e.add(e.absent, "HailoRT is not installed: no driver, no library.", e.installStack())
	case v == "":
		e.add(OK, "HailoRT 5 is installed, but not as a package.")
	default:
		e.add(OK, "HailoRT 5 is installed: "+name+" "+e.packages[name]+".")
	}
}

// checkModule looks for the driver's file for the running kernel, and judges whether a driver that is loaded now will be
// there after the next start.
func checkModule(e *exam) {
	files := e.ModuleFiles(e.Kernel)
	if e.Loaded || len(files) > 0 && !e.Hidden {
		e.reached = built
	}
	switch {
	case !e.Loaded && e.Hidden:
		e.add(Fail, "The driver is not loaded, and why cannot be seen from here (a container?).", "# run hailo-clip doctor on the host")
	case !e.Loaded && len(files) > 0:
		e.add(OK, "The driver for kernel "+e.Kernel+" is on disk.")
	case !e.Loaded:
		e.add(Fail, "There is no driver (hailo1x_pci) for the running kernel "+e.Kernel+e.whyNotBuilt()+".", e.buildModule())
	case len(files) == 0 && e.Hidden:
		e.add(Info, "The driver is loaded; its file is not visible from here (a container?).")
	case len(files) == 0:
		e.add(Warn, "The driver is loaded, but its file for kernel "+e.Kernel+" is gone: the NPU will be missing after the next start.", e.buildModule())
	case strings.Contains(files[0], "/updates/dkms/"):
		e.add(OK, "The driver for kernel "+e.Kernel+" is built by DKMS, so it survives kernel updates.")
	default:
		e.add(Warn, "The driver was built for kernel "+e.Kernel+" only, without DKMS: the NPU will be gone after the next kernel update.", e.buildModule())
	}
}

// whyNotBuilt adds what the disk tells about a driver that is missing for this kernel.
func (e *exam) whyNotBuilt() string {
	var why []string
	if others := e.KernelsWithModule(); len(others) > 0 {
		why = append(why, "there is one for "+strings.Join(others, ", "))
	}
	if !e.Exists("/usr/sbin/dkms") {
		why = append(why, "DKMS is not installed")
	}
	if !e.Exists("/lib/modules/" + e.Kernel + "/build") {
		why = append(why, "the headers of this kernel are not installed")
	}
	if v := e.TooOldForKernel(); v != "" {
		why = append(why, "driver "+v+" does not compile on kernels from 6.15 on (del_timer_sync)")
	}
	if len(why) == 0 {
		return ""
	}
	return ": " + strings.Join(why, "; ")
}

func checkDriver(e *exam) {
	where, rejected := e.Blacklisted(), find(e.log, "Key was rejected")
	if e.Loaded && (e.p.Driver == "hailo1x" || e.p.Driver == "") {
		e.reached = driver
	}
	found, _ := e.symptom()
	what := "Driver " + orUnknown(e.Driver) + " is loaded"
	switch {
	case !e.Loaded && where != "":
		e.add(Fail, "The driver is not loaded: it is blacklisted in "+where+".",
			"# remove that entry, then:\nsudo depmod && sudo modprobe hailo1x_pci")
	case !e.Loaded && rejected != "":
		e.add(Fail, "The kernel refuses to load the driver: "+rejected, "# sign the module, or switch Secure Boot off in the firmware setup")
	case !e.Loaded:
		e.add(Fail, "The driver is on disk but not loaded.", "sudo depmod && sudo modprobe hailo1x_pci\nsudo dmesg | grep -i hailo | tail -20")
	case e.p.Driver == "hailo1x":
		e.add(OK, what+" and has the chip.")
	case e.p.Driver != "":
		e.add(Fail, "Another driver has the chip: "+e.p.Driver+".",
			"echo "+e.p.Address+" | sudo tee /sys/bus/pci/drivers/"+e.p.Driver+"/unbind",
			"echo "+e.p.Address+" | sudo tee /sys/bus/pci/drivers/hailo1x/bind")
	case found != nil && found.boot || len(e.MissingFirmware()) > 0:
		e.add(Info, what+" but could not start the chip; the reason follows.")
	default:
		e.add(Fail, what+" but could not start the chip.", bootFailed)
	}
}

func checkFirmware(e *exam) {
	missing := e.MissingFirmware()
	list := strings.Join(missing, ", ") + " in " + device.FirmwareDir
	switch {
	case len(missing) == 0:
		e.add(OK, "The firmware files are in "+device.FirmwareDir+".")
	case e.Hidden:
		e.add(Info, "The firmware files are not visible from here (a container?).")
	case e.running:
		e.add(Warn, "The chip runs, but firmware files are missing or empty, so it will not start again: "+list+".", e.reinstall(driverPackages))
	default:
		e.firmwareBad = true
		e.add(Fail, "Firmware files are missing or empty: "+list+".", e.reinstall(driverPackages), coldStart)
	}
}

func checkLibrary(e *exam) {
	five := e.libraries(5, 1e6)
	switch {
	case e.LibraryFolder != "":
		e.add(Fail, e.LibraryFolder+" is a folder: a container was started with a library that was not there.",
			"# give the container the host's libhailort.so of the driver's version\n# ("+orUnknown(e.Driver)+"), at the same path")
	case len(five) == 0:
		e.add(Fail, "HailoRT's library (libhailort.so) is not installed.", e.reinstall(libraryPackages))
	case len(five) > 1:
		e.add(Warn, "There is more than one libhailort: "+strings.Join(five, ", ")+".",
			"# remove those that are not of the driver's version ("+orUnknown(e.Driver)+")")
	default:
		e.add(OK, "HailoRT's library is "+five[0]+".")
	}
}

// checkVersions compares what is loaded with what is on disk. HailoRT wants driver, library and
// chip software of the very same version.
func checkVersions(e *exam) {
	lib := e.Library()
	name, onDisk := e.installed(driverPackages)
	libName, _ := e.installed(libraryPackages)
	const update = "sudo apt update\nsudo apt install "
	switch {
	case lib == "": // said by checkLibrary
	case e.Driver == "":
		e.add(Info, "The loaded driver does not tell its version; the library is "+lib+".")
	case e.Driver != lib && onDisk == lib:
		e.add(Fail, "The loaded driver is "+e.Driver+", but driver package and library are "+lib+": the new driver has not been started.", coldStart)
	case e.Driver != lib:
		why := "HailoRT refuses different versions (status 76)"
		// The class moved in 5.3, and a library looks in one place only.
		if device.Newer(e.Driver, "5.2.999") != device.Newer(lib, "5.2.999") {
			why = "with these two, HailoRT finds no device and prints no error"
		}
		e.add(Fail, "The loaded driver is "+e.Driver+", the library "+lib+": "+why+".", "# install both of one version", update+libName+" "+name, coldStart)
	case onDisk != "" && onDisk != e.Driver:
		e.add(Warn, "Driver and library are "+lib+", but package "+name+" is "+onDisk+": they will not match after the next start.",
			update+libraryPackages[0]+" "+name, coldStart)
	default:
		e.add(OK, "Driver and library are both "+lib+".")
	}
}

// checkHeaders looks for what the worker is compiled with. They come with the library.
func checkHeaders(e *exam) {
	const header = "/usr/include/hailo/hailort.hpp"
	worker, _ := e.Program(e.env.Worker)
	switch {
	case e.Exists(header):
		e.add(OK, "The headers to build the worker are in "+path.Dir(header)+".")
	case e.HasLibrary(device.VersionAtEnd(worker.HailoRT)):
		e.add(Info, "The headers to build the worker are missing; the worker is there without them.")
	default:
		e.add(e.absent, "The headers to build the worker are missing: "+header+".", e.reinstall(libraryPackages))
	}
}

func checkWorker(e *exam) {
	file := e.env.Worker
	info := e.Stat(file)
	if file == "" || info == nil {
		e.add(e.absent, strings.TrimSuffix("The worker hailo-clip-npu is not installed: "+file, ": ")+".", e.makeWorker())
		return
	}
	p, isELF := e.Program(file)
	e.Versions.Worker = device.VersionAtEnd(p.HailoRT)
	lib, the := e.Library(), "The worker "+file
	switch {
	case !isELF:
		e.add(Fail, the+" is not a program.", e.makeWorker())
	case info.Mode().Perm()&0o111 == 0:
		e.add(Fail, the+" may not be executed.", "sudo chmod 755 "+shell(file))
	case !p.Native:
		e.add(Fail, the+" is for another kind of processor ("+p.Machine+").", e.makeWorker())
	case p.HailoRT == "":
		e.add(Fail, the+" does not use libhailort, so it cannot drive the chip.", e.makeWorker())
	case e.Versions.Worker != "" && lib == "":
		e.add(Info, the+" was built for libhailort "+e.Versions.Worker+", which has to be installed.")
	case e.Versions.Worker != "" && !e.HasLibrary(e.Versions.Worker):
		e.add(Fail, the+" was built for libhailort "+e.Versions.Worker+", but "+lib+" is installed: it cannot start.", e.makeWorker())
	default:
		e.add(OK, the+" was built for "+p.HailoRT+".")
	}
}
