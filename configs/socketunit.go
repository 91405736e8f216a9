package configs

import (
	_ "embed"
	"strconv"
	"strings"
)

//go:embed hailo-clip.socket
var socketUnit string

// SocketUnit is the systemd unit of a socket at server.host and server.port.
func (c Config) SocketUnit() string {
	address := c.Server.Addr()
	if strings.HasPrefix(address, ":") { // IPv6 and IPv4
		address = strconv.Itoa(c.Server.Port)
	}
	return strings.Replace(socketUnit, "ListenStream=0.0.0.0:5000\n", "ListenStream="+address+"\n", 1)
}
