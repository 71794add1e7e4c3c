package faultconn_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/scaleaware/scaleaware/internal/faultconn"
)

func Example() {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := server.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		io.Copy(conn, conn)
	}()

	proxy, err := faultconn.New(server.Addr().String())
	if err != nil {
		panic(err)
	}
	defer func() {
		proxy.Close()
		server.Close()
		<-done
	}()

	conn, err := net.Dial("tcp", proxy.Addr())
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	proxy.Stall(faultconn.ToClient)
	conn.Write([]byte("hello"))
	answer := make([]byte, 5)
	conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	_, err = io.ReadFull(conn, answer)
	fmt.Println("stalled: timed out", errors.Is(err, os.ErrDeadlineExceeded))

	proxy.Heal()
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err = io.ReadFull(conn, answer)
	fmt.Println("healed:", string(answer), err)
	// Output:
	// stalled: timed out true
	// healed: hello <nil>
}
