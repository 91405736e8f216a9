//go:build !amd64 && !arm64

package resize

var fastest = portable
