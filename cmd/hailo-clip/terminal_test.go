package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTerminalThatGoes: SIGHUP of a terminal that is closed ends the service, as ever; before that it has it reload.
func TestTerminalThatGoes(t *testing.T) {
	t.Parallel()
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer terminal.Close()
	number, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(terminal.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Skip(err)
	}
	tty := must(os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|unix.O_NOCTTY, 0))
	c := serveCommand(t.TempDir(), "--backend", "cpu", "--model", "demo")
	c.Stdin, c.SysProcAttr = tty, &syscall.SysProcAttr{Setsid: true, Setctty: true}
	r := start(t, c).serving(t)
	tty.Close()
	if err := c.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	until(t, "it reloads", func() bool { return strings.Contains(r.logged(), "loaded again") })
	terminal.Close()
	<-r.ended
	if code := c.ProcessState.ExitCode(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	r.logs(t, `"msg":"stopped"`)
}
