package api

import (
	"fmt"
	"net"
	"strconv"

	"hailoclip/api/compat"
)

// ForImmich marks a listener that serves Immich alone, with its paths and no others, without a key and without TLS.
type ForImmich struct{ net.Listener }

// ListenForImmich opens the address at compat.immich.listen, which must not be "".
func ListenForImmich(c compat.Immich) (net.Listener, error) {
	host, text, _ := net.SplitHostPort(c.Listen) // Check has found it in order
	port, _ := strconv.Atoi(text)
	ln, err := Config{Host: host, Port: port}.Listen()
	if err != nil {
		return nil, fmt.Errorf("compat.immich.listen: %w", err)
	}
	return ForImmich{ln}, nil
}
