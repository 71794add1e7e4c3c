package cache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// beatEvery is how often a master is asked its time over the connection on which it sends what changes: the answer says
// that everything from before the question has been heard.
const beatEvery = 100 * time.Millisecond

// placeBeats is how many beats pass between two looks at which slots a master has, if nothing calls for one.
const placeBeats = 10

// errUntracked says that a server does not tell its clients what changes.
var errUntracked = errors.New("cache: the server refuses CLIENT TRACKING, so processes tell each other what they change, which costs commands, and what others change is not heard of; allow the command (Redis 6 or newer, RESP3)")

// watch is one connection on which a master sends what changes under the prefix.
type watch struct {
	store *Store
	addr  string
	conn  net.Conn
	in    *bufio.Reader
	cover *cover
	armed time.Duration // when tracking was asked for

	mu    sync.Mutex
	asked []question // not yet answered

	place  claim
	config string // the cluster's epochs as last seen
}

type question struct {
	kind byte // 't' time, 'r' role, 'c' epochs of the cluster, 'p' place
	at   time.Duration
}

// watchNode keeps a watch on a master until ctx ends. Failures are counted and logged; it begins again.
func (s *Store) watchNode(ctx context.Context, node *redis.Client) {
	addr := node.Options().Addr
	for wait := 50 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, time.Second) {
		began := time.Now()
		err := s.watchOnce(ctx, node)
		s.coverage.claimed(addr, claim{})
		if ctx.Err() != nil {
			return
		}
		s.in.failed(ctx, "watch", err, "server", addr)
		s.kick() // the cluster may have changed
		if time.Since(began) > time.Second {
			wait = 50 * time.Millisecond
		}
		if errors.Is(err, errUntracked) {
			s.untracked.Store(true)
			wait = 10 * time.Second
		}
		if sleep(ctx, wait) != nil {
			return
		}
	}
}

// watchOnce watches until something breaks, and returns what.
func (s *Store) watchOnce(ctx context.Context, node *redis.Client) error {
	o := node.Options()
	dctx, cancel := context.WithTimeout(ctx, s.stepTimeout())
	conn, err := o.Dialer(dctx, o.Network, o.Addr)
	cancel()
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	w := &watch{store: s, addr: o.Addr, conn: conn, in: bufio.NewReaderSize(conn, 64<<10)}
	if err := w.greet(ctx, o); err != nil {
		return err
	}
	beating := make(chan error, 1)
	bctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() { beating <- w.beat(bctx) }()
	err = w.listen()
	stop()
	conn.Close()
	return errors.Join(err, <-beating)
}

// greet logs in and asks for what changes.
func (w *watch) greet(ctx context.Context, o *redis.Options) error {
	user, password, err := credentials(ctx, o)
	if err != nil {
		return err
	}
	hello := []string{"HELLO", "3"}
	if password != "" {
		if user == "" {
			user = "default"
		}
		hello = append(hello, "AUTH", user, password)
	}
	hello = append(hello, "SETNAME", "scaleaware-cache")
	_ = w.conn.SetDeadline(time.Now().Add(w.store.stepTimeout()))
	if _, err := w.ask(hello...); err != nil {
		if refused := serverError(""); errors.As(err, &refused) && (strings.HasPrefix(string(refused), "ERR unknown command") || strings.HasPrefix(string(refused), "NOPROTO")) {
			return fmt.Errorf("%w: %w", errUntracked, err)
		}
		return err
	}
	w.armed = w.store.now()
	if _, err := w.ask("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", w.store.opts.Prefix); err != nil {
		if errors.As(err, new(serverError)) {
			return fmt.Errorf("%w: %w", errUntracked, err)
		}
		return err
	}
	w.store.untracked.Store(false)
	return w.conn.SetDeadline(time.Time{})
}

func credentials(ctx context.Context, o *redis.Options) (user, password string, err error) {
	switch {
	case o.StreamingCredentialsProvider != nil:
		return "", "", errors.New("cache: a client with StreamingCredentialsProvider cannot be watched, so nothing is kept in the process; give CredentialsProviderContext")
	case o.CredentialsProviderContext != nil:
		return o.CredentialsProviderContext(ctx)
	case o.CredentialsProvider != nil:
		user, password = o.CredentialsProvider()
		return user, password, nil
	default:
		return o.Username, o.Password, nil
	}
}

// ask sends one command and waits for its reply, before listen does.
func (w *watch) ask(args ...string) (any, error) {
	if _, err := w.conn.Write(appendCommand(nil, args...)); err != nil {
		return nil, err
	}
	for {
		reply, err := readReply(w.in, 0)
		if err != nil {
			return nil, err
		}
		switch reply := reply.(type) {
		case push:
			w.heard(reply)
		case serverError:
			return nil, reply
		default:
			return reply, nil
		}
	}
}

// beat asks for the time again and again, and for the place when that is due.
func (w *watch) beat(ctx context.Context) error {
	ticker := time.NewTicker(beatEvery)
	defer ticker.Stop()
	for n := 0; ; n++ {
		kinds := "rt"
		if w.store.coverage.clustered {
			if kinds = "tc"; n%placeBeats == 0 {
				kinds = "tp"
			}
		}
		if err := w.send(kinds); err != nil {
			w.conn.Close()
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (w *watch) send(kinds string) error {
	commands := map[rune][]string{'t': {"TIME"}, 'r': {"HELLO"}, 'c': {"CLUSTER", "INFO"}, 'p': {"CLUSTER", "NODES"}}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.asked) > 200 {
		return errors.New("cache: the master does not answer")
	}
	var text []byte
	now := w.store.now()
	for _, kind := range kinds {
		text = appendCommand(text, commands[kind]...)
		w.asked = append(w.asked, question{byte(kind), now})
	}
	_ = w.conn.SetWriteDeadline(time.Now().Add(w.store.stepTimeout()))
	_, err := w.conn.Write(text)
	return err
}

// listen takes in what the master says.
func (w *watch) listen() error {
	for {
		// A master that is silent for so long is covered no more; the connection may go, too.
		_ = w.conn.SetReadDeadline(time.Now().Add(2*w.store.opts.Silence + time.Second))
		reply, err := readReply(w.in, 0)
		if err != nil {
			return err
		}
		if p, ok := reply.(push); ok {
			w.heard(p)
			continue
		}
		if err := w.answered(reply); err != nil {
			return err
		}
	}
}

func (w *watch) answered(reply any) error {
	w.mu.Lock()
	if len(w.asked) == 0 {
		w.mu.Unlock()
		return errRESP
	}
	q := w.asked[0]
	w.asked = w.asked[1:]
	w.mu.Unlock()
	if refused, ok := reply.(serverError); ok {
		return refused
	}
	switch q.kind {
	case 't':
		return w.timed(q.at, reply)
	case 'r':
		return playing(reply)
	case 'c':
		text, _ := reply.(string)
		if now := configOf(text); now != w.config {
			w.config = now
			return w.send("p")
		}
	case 'p':
		text, _ := reply.(string)
		return w.placed(text)
	}
	return nil
}

// timed takes in the answer to TIME.
func (w *watch) timed(at time.Duration, reply any) error {
	parts, _ := reply.([]any)
	if len(parts) != 2 {
		return errRESP
	}
	seconds, _ := parts[0].(string)
	micros, _ := parts[1].(string)
	sec, err1 := strconv.ParseInt(seconds, 10, 64)
	usec, err2 := strconv.ParseInt(micros, 10, 64)
	if err1 != nil || err2 != nil {
		return errRESP
	}
	silence, now := w.store.opts.Silence, w.store.now()
	if now-at > silence {
		return nil // it says nothing of what is used now
	}
	if w.cover == nil {
		w.begin(w.armed)
	} else if int64(now)-w.cover.heard.Load() > int64(silence) {
		w.begin(at) // another may have been the master meanwhile, and this one need not know yet
	}
	middle := (at + now) / 2
	w.cover.ahead.Store(sec*1_000_000 + usec - middle.Microseconds())
	w.cover.heard.Store(int64(at))
	return nil
}

// begin makes a new cover, on which nothing that was kept rests.
func (w *watch) begin(heard time.Duration) {
	ahead := int64(0)
	if w.cover != nil {
		ahead = w.cover.ahead.Load()
	}
	w.cover = newCover(w.addr, heard)
	w.cover.ahead.Store(ahead)
	w.place.cover = w.cover
	if !w.store.coverage.clustered || w.place.slots != "" {
		w.store.coverage.claimed(w.addr, w.place)
	}
	w.store.kick()
}

// placed takes in CLUSTER NODES.
func (w *watch) placed(text string) error {
	p, err := parsePlace(text)
	if err != nil {
		w.store.kick()
		return err
	}
	number, slots, _ := strings.Cut(p.slots, " ")
	n, _ := strconv.ParseUint(number, 10, 64)
	if w.cover == nil {
		w.begin(w.armed)
	}
	now := claim{cover: w.cover, epoch: n, slots: slots}
	if now != w.place {
		w.place = now
		w.store.coverage.claimed(w.addr, now)
		w.store.kick()
	}
	return nil
}

// heard takes in a push.
func (w *watch) heard(p push) {
	if len(p) != 2 || p[0] != "invalidate" {
		return
	}
	keys, ok := p[1].([]any)
	if !ok { // all keys of the server: FLUSHALL
		if w.cover != nil {
			w.begin(w.store.now())
		}
		w.store.ruling.fence.Add(1)
		w.store.clock.fence.Add(1)
		w.store.rulesMoved.ring() // once more: who came for begin's may have found nothing moved
		w.store.clockMoved.ring()
		w.store.wakeAll()
		return
	}
	for _, k := range keys {
		if key, ok := k.(string); ok {
			w.store.changed(key)
		}
	}
}

// configOf returns the lines of CLUSTER INFO that say whether slots may have moved.
func configOf(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		name, _, _ := strings.Cut(line, ":")
		if slices.Contains([]string{"cluster_current_epoch", "cluster_my_epoch", "cluster_size", "cluster_known_nodes"}, name) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// playing returns an error when HELLO's answer, a map, is not a master's. A replica tells what its master changes, late, or
// never when it has lost it; what is written goes to another server.
func playing(reply any) error {
	fields, _ := reply.([]any)
	for i := 0; i+1 < len(fields); i += 2 {
		if fields[i] == "role" && fields[i+1] != "master" {
			return fmt.Errorf("cache: the server is no master any more, but a %v", fields[i+1])
		}
	}
	return nil
}
