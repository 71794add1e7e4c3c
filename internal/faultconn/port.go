package faultconn

import (
	"context"
	"net"
	"strconv"
	"syscall"
)

// port keeps a loopback port ours while nobody listens on it: a socket that is bound but does not listen holds the number,
// and the kernel answers clients with "connection refused". SO_REUSEPORT lets our listener be bound beside it.
type port struct {
	addr string
	fd   int
}

func reserve() (*port, error) {
	syscall.ForkLock.RLock() // no child is started between the two
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, err
	}
	number, err := bindLoopback(fd)
	if err != nil {
		syscall.Close(fd)
		return nil, err
	}
	return &port{addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(number)), fd: fd}, nil
}

func bindLoopback(fd int) (int, error) {
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, soReusePort, 1); err != nil {
		return 0, err
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	return name.(*syscall.SockaddrInet4).Port, nil
}

func (p *port) listen() (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, soReusePort, 1)
		})
		if err != nil {
			return err
		}
		return failed
	}}
	return config.Listen(context.Background(), "tcp4", p.addr)
}

func (p *port) release() { syscall.Close(p.fd) }
