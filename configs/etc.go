package configs

import _ "embed"

// Etc is what an installation writes to SystemFile if that does not exist. It has only comments, so every setting has its default.
//
//go:embed etc.yaml
var Etc string
