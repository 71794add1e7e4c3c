package trips

import (
	"bufio"
	"fmt"
	"net"
	"testing"
)

// What is sent in one piece is one trip, however many pieces the answer comes in, and what the server says unasked is none.
func TestCount(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := New(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	line := func(r *bufio.Reader) {
		t.Helper()
		if _, err := r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		client, err := net.Dial("tcp", c.Addr())
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		answers, questions := bufio.NewReader(client), bufio.NewReader(server)
		fmt.Fprintln(server, "welcome")
		line(answers)
		for range 5 {
			fmt.Fprint(client, "question\nand another\n")
			line(questions)
			line(questions)
			fmt.Fprintln(server, "answer")
			line(answers)
			fmt.Fprintln(server, "more of it")
			line(answers)
		}
		client.Close()
		server.Close()
	}
	if n := c.Count(); n != 10 {
		t.Errorf("%d round trips, want 10", n)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
