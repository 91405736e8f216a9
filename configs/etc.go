package configs

import _ "embed"

// Etc is the file that an installation writes to SystemFile where there is none: comments only, so that every setting has
// its default.
//
//go:embed etc.yaml
var Etc string
