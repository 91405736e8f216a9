//go:build !amd64

package resize

var fastest = portable
