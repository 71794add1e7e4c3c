package main

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
)

// countedBody calls done once, when the response has been read or dropped.
type countedBody struct {
	io.ReadCloser
	once sync.Once
	done func()
}

func (b *countedBody) Close() error {
	b.once.Do(b.done)
	return b.ReadCloser.Close()
}

// refused says that the connection was never made, so the instance cannot have seen the request.
func refused(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial" || errors.Is(err, syscall.ECONNREFUSED)
}
