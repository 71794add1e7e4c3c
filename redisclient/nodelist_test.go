package redisclient_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/redisclient"
)

// impostor talks enough of Redis's protocol to be taken for a node of a cluster, and names the nodes that it likes.
type impostor struct {
	net.Listener
	slots, moved string
	asked        atomic.Int64 // commands that came
}

// newImpostor serves one over TLS on an address of loopback until the test ends.
func newImpostor(t *testing.T, host string, config *tls.Config) *impostor {
	t.Helper()
	plain, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	i := &impostor{Listener: tls.NewListener(plain, config)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := i.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { i.serve(conn) })
		}
	})
	t.Cleanup(func() { i.Close(); serving.Wait() })
	return i
}

func (i *impostor) serve(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	in := bufio.NewReader(conn)
	for {
		words, err := command(in)
		if err != nil {
			return
		}
		i.asked.Add(1)
		answer := "+OK\r\n"
		switch name := strings.ToUpper(words[0]); {
		case name == "HELLO":
			answer = "-ERR unknown command\r\n"
		case name == "CLUSTER" && strings.EqualFold(words[1], "slots"):
			answer = i.slots
		case name == "CLUSTER", name == "COMMAND":
			answer = "*0\r\n"
		case name == "GET":
			answer = i.moved
		}
		if _, err := io.WriteString(conn, answer); err != nil {
			return
		}
	}
}

// command reads one request.
func command(in *bufio.Reader) ([]string, error) {
	number := func(mark byte) (int, error) {
		line, err := in.ReadString('\n')
		if err != nil || line[0] != mark {
			return 0, fmt.Errorf("%q, %w", line, err)
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	n, err := number('*')
	if err != nil || n < 1 {
		return nil, fmt.Errorf("%d words, %w", n, err)
	}
	words := make([]string, n, n+1)
	for i := range words {
		size, err := number('$')
		if err != nil {
			return nil, err
		}
		text := make([]byte, size+2)
		if _, err := io.ReadFull(in, text); err != nil {
			return nil, err
		}
		words[i] = string(text[:size])
	}
	return append(words, ""), nil
}

func slots(host string, port any) string {
	return fmt.Sprintf("*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$%d\r\n%s\r\n:%v\r\n$1\r\nx\r\n", len(host), host, port)
}

// A cluster's own answers say where its nodes are. Over TLS a node is believed only with a certificate for the host that it is
// named by: another server, wherever it is, gets no password and no command. Whatever is named, nothing panics, a call ends
// with its deadline, and no error has the password.
func TestNodeListsThatLie(t *testing.T) {
	server := httptest.NewTLSServer(nil) // for its certificate, which is for 127.0.0.1 and example.com
	certificate, roots := server.TLS.Certificates[0], x509.NewCertPool()
	roots.AddCert(server.Certificate())
	server.Close()
	config := &tls.Config{Certificates: []tls.Certificate{certificate}}
	stranger := newImpostor(t, "127.0.0.2", config)
	strange, port, _ := net.SplitHostPort(stranger.Addr().String())
	for name, test := range map[string]struct{ slots, moved string }{
		"slots at a stranger's":       {slots(strange, port), "$-1\r\n"},
		"a redirect to a stranger":    {"", "-MOVED 1 " + stranger.Addr().String() + "\r\n"},
		"a question to a stranger":    {"", "-ASK 1 " + stranger.Addr().String() + "\r\n"},
		"the metadata of the cloud":   {slots("169.254.169.254", 80), "$-1\r\n"},
		"no host":                     {slots("", port), "$-1\r\n"},
		"a host of lines":             {slots("a\r\nb", port), "$-1\r\n"},
		"a host with a path":          {slots("a/b@c", port), "$-1\r\n"},
		"a file":                      {slots("/var/run/docker.sock", 1), "$-1\r\n"},
		"a negative port":             {slots("127.0.0.1", -1), "$-1\r\n"},
		"a port of 20 digits":         {slots("127.0.0.1", "99999999999999999999"), "$-1\r\n"},
		"no nodes":                    {"*1\r\n*2\r\n:0\r\n:16383\r\n", "$-1\r\n"},
		"slots beyond the last":       {"*1\r\n*3\r\n:-5\r\n:99999999\r\n*3\r\n$9\r\n127.0.0.1\r\n:1\r\n$1\r\nx\r\n", "$-1\r\n"},
		"another type":                {"+PONG\r\n", "$-1\r\n"},
		"a redirect without a target": {"", "-MOVED\r\n"},
		"a redirect to nowhere":       {"", "-MOVED x y z\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			seed := newImpostor(t, "127.0.0.1", config)
			host, own, _ := net.SplitHostPort(seed.Addr().String())
			seed.slots, seed.moved = test.slots, test.moved
			if seed.slots == "" {
				seed.slots = slots(host, own)
			}
			o, err := redisclient.ParseURL("rediss://app:" + canary + "@" + seed.Addr().String() + "?cluster=true")
			check(t, err)
			o.TLSConfig.RootCAs = roots
			rdb := redisclient.New(o)
			defer rdb.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			began := time.Now()
			err = rdb.Get(ctx, "key").Err()
			each := redisclient.EachMaster(ctx, rdb, func(ctx context.Context, c *redis.Client) error { return c.Get(ctx, "key").Err() })
			if took := time.Since(began); took > 6*time.Second {
				t.Errorf("it took %v", took)
			}
			noCanary(t, err, each)
			if seed.asked.Load() == 0 {
				t.Errorf("the cluster was not asked: %v", err)
			}
		})
	}
	if n := stranger.asked.Load(); n != 0 {
		t.Errorf("a stranger got %d commands, the password among them", n)
	}
}
