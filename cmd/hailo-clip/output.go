package main

import "os"

// stdout is what the commands print to. It is not buffered: what a long-running command says is
// seen at once, and nothing is lost at a panic.
var stdout = &output{to: os.Stdout}

// output remembers that something could not be written, so that no command need look at the
// result of each print and none ends with 0 when what it printed was lost.
type output struct {
	to   *os.File
	lost error // the first failure
}

func (o *output) Write(b []byte) (int, error) {
	n, err := o.to.Write(b)
	if o.lost == nil {
		o.lost = err
	}
	return n, err
}
