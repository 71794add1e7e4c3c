package lead

import (
	"fmt"
	"net"
)

// Listen names the variable to change when the address is taken.
func Listen(variable, addr string) (net.Listener, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s, set %s to another (a port of 0 lets the system choose): %w", addr, variable, err)
	}
	return listener, nil
}
