package cachebench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/scaleaware/scaleaware/cache"
	"github.com/scaleaware/scaleaware/redisclient"
)

// observerEnv makes a process of this program an observer; it holds an observerConfig.
const observerEnv = "CACHEBENCH_OBSERVER"

type observerConfig struct {
	Addrs  []string
	Prefix string
}

// observer is another process with a store of its own, which keeps an entry until it is told to be gone.
type observer struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (l *lab) observer(prefix string) (*observer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(observerConfig{Addrs: l.cluster.Addrs(), Prefix: prefix})
	if err != nil {
		return nil, err
	}
	o := &observer{cmd: exec.Command(self)}
	o.cmd.Env, o.cmd.Stderr = append(os.Environ(), observerEnv+"="+string(config)), os.Stderr
	if o.in, err = o.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := o.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	o.out = bufio.NewReader(out)
	return o, o.cmd.Start()
}

func (o *observer) close() {
	_ = o.in.Close()
	_ = o.cmd.Wait()
}

// keep returns when the other process keeps the entry.
func (o *observer) keep(id string) error {
	if _, err := fmt.Fprintln(o.in, id); err != nil {
		return err
	}
	_, err := o.heard()
	return err
}

// gone returns how long after since the other process's first look-up began that does not find the entry.
func (o *observer) gone(since time.Time) (time.Duration, error) {
	at, err := o.heard()
	return max(0, at.Sub(since)), err
}

// heard is a moment that the other process tells, by the clock that both have.
func (o *observer) heard() (time.Time, error) {
	line, err := o.out.ReadString('\n')
	if err != nil {
		return time.Time{}, fmt.Errorf("the observing process has ended: %w", err)
	}
	nanos, err := strconv.ParseInt(line[:len(line)-1], 10, 64)
	return time.Unix(0, nanos), err
}

// Observe is what a process does that Measure has started, until Measure ends it. In all others it returns false at once.
func Observe() (observed bool, err error) {
	text := os.Getenv(observerEnv)
	if text == "" {
		return false, nil
	}
	var config observerConfig
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		return true, err
	}
	rdb := redisclient.New(redisclient.Options(config.Addrs...))
	defer rdb.Close()
	s, err := cache.New(rdb, &cache.Options{Prefix: config.Prefix, RedisTimeout: 5 * time.Second})
	if err != nil {
		return true, err
	}
	ctx := context.Background()
	defer running(ctx, s)()
	v := newsView(s)
	for ids := bufio.NewScanner(os.Stdin); ids.Scan(); {
		id := ids.Text()
		err := eventually("the value is kept in the other process", func() bool {
			was := s.HitRate().Views["lead"].ByResult["l1"]
			_, _ = v.Get(ctx, id)
			_, _ = v.Get(ctx, id)
			return s.HitRate().Views["lead"].ByResult["l1"] > was
		})
		if err != nil {
			return true, err
		}
		fmt.Println(time.Now().UnixNano())
		at, err := missed(ctx, v, id)
		if err != nil {
			return true, err
		}
		fmt.Println(at.UnixNano())
	}
	return true, nil
}

// missed returns when the first look-up began that does not find id.
func missed(ctx context.Context, v *cache.View[lead], id string) (time.Time, error) {
	for since := time.Now(); ; time.Sleep(20 * time.Microsecond) {
		begun := time.Now()
		switch _, err := v.Get(ctx, id); {
		case errors.Is(err, cache.ErrMiss):
			return begun, nil
		case err != nil:
			return begun, err
		case begun.Sub(since) > patience:
			return begun, errors.New("what was removed is still there")
		}
	}
}
