package localserver

import (
	"io"
	"os"
	"runtime"
	"syscall"
)

// reserve binds a port that the kernel chooses, without listening. On Linux a
// server that sets SO_REUSEADDR, as PostgreSQL and Redis do, can bind and
// listen beside it, while the kernel gives the port to nobody else, and
// refuses connections as long as no server listens. Elsewhere the socket would
// be in the server's way, so it is closed at once and hold is nil.
func reserve() (port int, hold io.Closer, err error) {
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return 0, nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), "port reservation")
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		file.Close()
		return 0, nil, os.NewSyscallError("setsockopt", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		file.Close()
		return 0, nil, os.NewSyscallError("bind", err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		file.Close()
		return 0, nil, os.NewSyscallError("getsockname", err)
	}
	port = name.(*syscall.SockaddrInet4).Port
	if runtime.GOOS != "linux" {
		file.Close()
		return port, nil, nil
	}
	return port, file, nil
}
