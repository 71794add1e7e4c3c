package cache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// Commands for one master that come while others are under way are sent together: who finds laneWidth calls under way
// joins a batch, and one of those who wait in it sends it as a pipeline when a call has ended. Nobody waits for company: a
// caller alone sends its command at once, and where many came lately, the first of the next ones lets others that are ready
// to run do so before it sends. A batch has no goroutine of its own, and its pipeline no other deadline than that of the
// caller who sends it; a GET that got no answer in it is sent again alone.

const (
	// laneWidth is how many calls are under way at a time. One would hold up callers that come in twos for a round
	// trip; with many, batches stay small.
	laneWidth = 2
	// crowded is when a batch waits for both calls under way: fewer and longer pipelines cost everybody less then. It
	// does not wait long for the second: that may have lost its connection.
	crowded       = 24
	crowdPatience = 2 * time.Millisecond
	// company is how many commands of the last batch make more of them likely.
	company = 4
	// maxBatch bounds what one caller sends for others.
	maxBatch = 128
)

// errLost says that a batch that somebody else sent brought no answer.
var errLost = errors.New("cache: sent with others, and not answered")

// lanes are the ways to the masters that the coverage does not know.
type lanes struct {
	byAddr atomic.Pointer[map[string]*lane] // not changed once it is there
	single lane                             // where the master is not known, or is the only one
	known  atomic.Bool                      // the client knows the masters, so nobody waits for it to learn them
}

// maxLanes is more than a cluster has masters. They are forgotten at so many: most are no masters any more.
const maxLanes = 2000

func (ls *lanes) to(addr string) *lane {
	for {
		have := ls.byAddr.Load()
		var next map[string]*lane
		if have != nil {
			if l := (*have)[addr]; l != nil {
				return l
			}
			if len(*have) < maxLanes {
				next = maps.Clone(*have)
			}
		}
		if next == nil {
			next = make(map[string]*lane)
		}
		l := new(lane)
		next[addr] = l
		if ls.byAddr.CompareAndSwap(have, &next) {
			return l
		}
	}
}

// lane is the way to one master.
type lane struct {
	mu      sync.Mutex
	flying  int  // calls under way
	last    int  // commands of the last batch
	held    bool // forming waits for all of them
	urging  *time.Timer
	forming *batch   // what comes meanwhile
	full    []*batch // those that came before it, of maxBatch each
	// timers are used again: many callers wait at a time, and nearly none as long as it may. They are the lane's own, as a test's
	// synctest bubble lets no other use its timers.
	timers sync.Pool
}

// batch is what goes together.
type batch struct {
	commands []*batched
	led      bool          // it has a call of its own, which waits for nobody's end
	waiting  int           // of them, those that somebody waits for
	turn     chan struct{} // gets one value when it is the batch's turn: who takes it sends the batch
	sent     chan struct{} // closed when all commands have their answers
}

// batched is one command of a batch.
type batched struct {
	cmd  redis.Cmder
	left atomic.Bool // its caller has gone
	lost bool        // it was sent in vain
}

// laneOf returns the way to the master that has a key, by end if the client has to be asked and may have to learn them.
func (s *Store) laneOf(ctx context.Context, g *guard, end time.Time, key string) *lane {
	if g != nil {
		return &g.lane
	}
	if !s.lanes.known.Load() {
		var cancel func()
		ctx, cancel = context.WithDeadline(ctx, end)
		defer cancel()
	}
	return s.lane(ctx, key)
}

// lane asks the client for the master that has a key.
func (s *Store) lane(ctx context.Context, key string) *lane {
	cluster, ok := s.rdb.(*redis.ClusterClient)
	if !ok {
		return &s.lanes.single
	}
	node, err := cluster.MasterForKey(ctx, key)
	if err != nil {
		return &s.lanes.single
	}
	if !s.lanes.known.Load() {
		s.lanes.known.Store(true)
	}
	return s.lanes.to(node.Options().Addr)
}

// process sends a command to the master that has a key, alone or with others, and waits RedisTimeout for its answer. When
// it returns an error that is not the command's own, the command must not be looked at any more: others may still be at it.
func (s *Store) process(ctx context.Context, g *guard, key string, cmd redis.Cmder) error {
	if err := ctx.Err(); err != nil { // or else others would go with it
		return err
	}
	end := time.Now().Add(s.opts.RedisTimeout)
	l := s.laneOf(ctx, g, end, key)
	b, mine, leads := l.join(cmd)
	if b == nil {
		defer l.next()
		return s.alone(ctx, end, cmd)
	}
	if leads {
		runtime.Gosched()
		l.depart(b)
		l.send(ctx, end, s.rdb, b)
	} else if err := l.wait(ctx, end, s.rdb, b, mine); err != nil {
		return err
	}
	switch {
	case !mine.lost || ctx.Err() != nil || !time.Now().Before(end):
		return cmd.Err()
	case cmd.Name() == "get":
		cmd.SetErr(nil)
		return s.alone(ctx, end, cmd)
	default: // it may have been done
		return fmt.Errorf("%w: %w", errLost, cmd.Err())
	}
}

// wait waits until the command has its answer, or sends the batch when its turn has come.
func (l *lane) wait(ctx context.Context, end time.Time, rdb redis.UniversalClient, b *batch, mine *batched) error {
	timer := l.startTimer(time.Until(end))
	defer l.stopTimer(timer)
	select {
	case <-b.sent:
	case <-b.turn:
		l.send(ctx, end, rdb, b)
	case <-ctx.Done():
		l.leave(b, mine)
		return ctx.Err()
	case <-timer.C:
		l.leave(b, mine)
		return context.DeadlineExceeded
	}
	return nil
}

func (s *Store) alone(ctx context.Context, end time.Time, cmd redis.Cmder) error {
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	return s.rdb.Process(ctx, cmd)
}

func (l *lane) startTimer(d time.Duration) *time.Timer {
	t, ok := l.timers.Get().(*time.Timer)
	if !ok {
		return time.NewTimer(d)
	}
	t.Reset(d)
	return t
}

func (l *lane) stopTimer(t *time.Timer) {
	t.Stop()
	l.timers.Put(t)
}

// join gives the caller a place in a batch, or none when it shall send its command itself. Who leads lets the batch depart.
func (l *lane) join(cmd redis.Cmder) (b *batch, mine *batched, leads bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flying < laneWidth && l.forming == nil {
		l.flying++
		if l.last < company {
			return nil, nil, false
		}
		leads = true
	}
	if l.forming != nil && len(l.forming.commands) >= maxBatch {
		if !l.forming.led {
			l.full = append(l.full, l.forming)
		}
		l.forming = nil
	}
	if l.forming == nil {
		l.forming = &batch{led: leads, turn: make(chan struct{}, 1), sent: make(chan struct{})}
	}
	mine = &batched{cmd: cmd}
	l.forming.commands = append(l.forming.commands, mine)
	l.forming.waiting++
	return l.forming, mine, leads
}

// depart lets nobody else join a batch that is led.
func (l *lane) depart(b *batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = len(b.commands)
	if l.forming == b {
		l.forming = nil
	}
}

// next ends a call: the next batch takes its place, if there is one that need not wait for another call.
func (l *lane) next() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flying > 1 && len(l.full) == 0 && l.forming != nil && !l.forming.led && l.forming.waiting >= crowded {
		l.flying--
		l.held = true
		if l.urging == nil {
			l.urging = time.AfterFunc(crowdPatience, l.urge)
		} else {
			l.urging.Reset(crowdPatience)
		}
		return
	}
	l.pass()
}

// urge lets a batch go that has waited for long enough.
func (l *lane) urge() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held {
		l.flying++
		l.pass()
	}
}

// pass is next with l.mu held, for who waits no more.
func (l *lane) pass() {
	l.held = false
	for {
		b := l.forming
		switch {
		case len(l.full) > 0:
			b, l.full = l.full[0], l.full[1:]
		case b == nil || b.led:
			l.flying--
			return
		default:
			l.forming = nil
		}
		if b.waiting > 0 {
			l.last = b.waiting
			b.turn <- struct{}{}
			return
		}
	}
}

// leave takes a caller out of a batch. When it was the last one and the turn has come, the turn goes on to others.
func (l *lane) leave(b *batch, mine *batched) {
	l.mu.Lock()
	defer l.mu.Unlock()
	mine.left.Store(true)
	b.waiting--
	if b.waiting > 0 {
		return
	}
	select {
	case <-b.turn:
		l.pass()
	default:
	}
}

// send sends a batch whose turn it is, on behalf of one who waits in it.
func (l *lane) send(ctx context.Context, end time.Time, rdb redis.UniversalClient, b *batch) {
	defer l.next()
	defer close(b.sent)
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	pipe := rdb.Pipeline()
	for _, c := range b.commands {
		if !c.left.Load() {
			_ = pipe.Process(ctx, c.cmd)
		}
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	for _, c := range b.commands {
		// A connection that breaks, or the sender's end, says less of the master than as many failed calls would.
		c.lost = c.cmd.Err() != nil && !answered(c.cmd.Err())
	}
}

// answered says that an error is Redis's answer.
func answered(err error) bool { return err == redis.Nil || errors.As(err, new(redis.Error)) }
