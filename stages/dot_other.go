//go:build !amd64 && !arm64

package stages

var dot = dotGo
