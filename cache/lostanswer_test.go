package cache

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware"
)

// lostAnswer loses answers to what was executed: pipelines, or a script.
type lostAnswer struct {
	redis.Hook
	script *redis.Script // nil for any pipeline
	lose   int
	sent   int
}

func (l *lostAnswer) DialHook(next redis.DialHook) redis.DialHook { return next }

func (l *lostAnswer) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if args := cmd.Args(); l.script != nil && len(args) > 1 && (args[1] == l.script.Hash() || args[1] == scriptText(l.script)) &&
			!redis.HasErrorPrefix(err, "NOSCRIPT") {
			l.sent++
			err = l.answer(err, cmd)
		}
		return err
	}
}

func (l *lostAnswer) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if l.script == nil {
			err = l.answer(err, cmds...)
		}
		return err
	}
}

func (l *lostAnswer) answer(err error, cmds ...redis.Cmder) error {
	if l.lose == 0 {
		return err
	}
	l.lose--
	for _, cmd := range cmds {
		cmd.SetErr(context.DeadlineExceeded)
	}
	return context.DeadlineExceeded
}

// A delete that is made good for again, since nobody knows that it was done, does not let a load land that another delete of
// the key has shut out.
func TestDeleteThatIsRepeatedTakesNoneBack(t *testing.T) {
	ctx := testContext(t)
	rdb := client(t, one.Get(t))
	here := newStore(t, rdb, nil)
	v := Of[lead](sibling(t, here), "lead")
	key := v.prefix + "1"
	if err := v.Delete(ctx, "2"); err != nil { // the server knows the script
		t.Fatal(err)
	}
	here.debts.owe(here, key, scaleaware.Tokens{at(10)})
	hook := &lostAnswer{lose: 1}
	rdb.AddHook(hook)
	if err := here.payKeys(ctx, []string{key}); err == nil || hook.lose != 0 {
		t.Fatal(err, hook.lose)
	}
	g := newGate()
	g.saw = scaleaware.Tokens{at(12)}
	slow := background(ctx, v, "1", g.load)
	<-g.entered
	if err := Of[lead](sibling(t, here), "lead").Delete(ctx, "1"); err != nil { // of what the load has read
		t.Fatal(err)
	}
	if err := here.payKeys(ctx, []string{key}); err != nil {
		t.Fatal(err)
	}
	if len(here.debts.keys) != 0 {
		t.Error("it is still owed")
	}
	g.release <- lead{Score: 1}
	<-slow
	if l, err := v.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
		t.Errorf("a load from before the second delete landed: %+v, %v", l, err)
	}
}

// Nor does one that the client has sent twice, as one of a cluster does when a connection breaks; nor a sweep.
func TestScriptsThatAreSentTwiceTakeNoneBack(t *testing.T) {
	for name, script := range map[string]*redis.Script{"delete": deleteScript, "sweep": spareScript} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			s := newStore(t, client(t, one.Get(t)), nil)
			v := Of[lead](s, "lead")
			key := v.prefix + "1"
			remove := Of[lead](sibling(t, s), "lead").Delete
			if err := remove(wrote(ctx, at(10)), "1"); err != nil {
				t.Fatal(err)
			}
			args := s.spareArgs()
			if script == deleteScript {
				args = s.deletion(key, newLease(nil)).args
			}
			send := func() {
				t.Helper()
				if err := script.Run(ctx, s.rdb, []string{key}, args...).Err(); err != nil {
					t.Fatal(err)
				}
			}
			send()
			g := newGate()
			g.saw = scaleaware.Tokens{at(12)}
			slow := background(ctx, v, "1", g.load)
			<-g.entered
			if err := remove(ctx, "1"); err != nil { // of what the load has read
				t.Fatal(err)
			}
			send()
			g.release <- lead{Score: 1}
			<-slow
			if l, err := v.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
				t.Errorf("a load from before the second delete landed: %+v, %v", l, err)
			}
		})
	}
}

// Nor does a load whose begin the client has sent twice, whatever other load began on its lease before the delete.
func TestBeginThatIsSentTwiceTakesNoneBack(t *testing.T) {
	for _, many := range []bool{false, true} {
		t.Run(fmt.Sprint("many ", many), func(t *testing.T) {
			ctx := testContext(t)
			s := newStore(t, client(t, one.Get(t)), nil)
			v := Of[lead](s, "lead")
			first := &fill{key: v.prefix + "1", id: "1"}
			args := first.beginArgs(s.beginShared(first))
			send := func() any {
				t.Helper()
				if !many {
					reply, err := beginScript.one.Run(ctx, s.rdb, []string{first.key}, args...).Result()
					if err != nil {
						t.Fatal(err)
					}
					return reply
				}
				replies, err := beginScript.many.Run(ctx, s.rdb, []string{first.key}, args...).Slice()
				if err != nil {
					t.Fatal(err)
				}
				return replies[0]
			}
			send() // its answer is lost
			g := newGate()
			g.saw = scaleaware.Tokens{at(12)}
			slow := background(wrote(ctx, at(10)), v, "1", g.load) // the first one's load would not serve it
			<-g.entered
			slower := &fill{key: first.key, id: "1"}
			if _, _, _, err := s.begin(ctx, slower); !slower.leased || err != nil {
				t.Fatal(slower.leased, err)
			}
			if err := Of[lead](sibling(t, s), "lead").Delete(ctx, "1"); err != nil { // of what the load has read
				t.Fatal(err)
			}
			again := send()
			g.release <- lead{Score: 1}
			<-slow
			if l, err := v.Get(ctx, "1"); !errors.Is(err, ErrMiss) {
				t.Errorf("a load from before the delete landed: %+v, %v", l, err)
			}
			// The client hears of it now, and loads what is there after the delete. Its position may be the same: it is a bound.
			if how, _, _, err := s.began(first, again); how != granted || err != nil {
				t.Fatal(how, err)
			}
			saw := scaleaware.Tokens{at(12)}
			land := func(fl *fill, score int64) string {
				payload, err := JSON{}.Encode(lead{Score: score})
				if err != nil {
					t.Fatal(err)
				}
				return v.land(ctx, fl, &answer{header: header{kind: kindValue, asOf: saw}, payload: payload, store: true, asOf: saw}).outcome
			}
			if outcome := land(first, 2); outcome != "stored" {
				t.Fatalf("the load after the delete: %s", outcome)
			}
			if outcome := land(slower, 1); outcome == "stored" {
				t.Error("a load from before the delete took the place of one from after it")
			}
			l, err := v.Get(ctx, "1")
			wantScore(t, l, err, 2)
		})
	}
}
