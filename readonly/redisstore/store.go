package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/readonly"
)

// Options configure a Store.
type Options struct {
	// Prefix begins every key and the channel. Services that share a Redis and must not share the switch need
	// different ones. It ends in a colon and has no braces or glob characters. Zero means "scaleaware:".
	Prefix string
}

// Store implements readonly.Store.
type Store struct {
	rdb                   redis.UniversalClient
	state, acks, channels string
}

var _ readonly.Store = (*Store)(nil)

// New returns a Store on rdb, which stays the caller's to close. Nothing is read yet.
func New(rdb redis.UniversalClient, options *Options) (*Store, error) {
	prefix := "scaleaware:"
	if options != nil && options.Prefix != "" {
		prefix = options.Prefix
	}
	if rdb == nil {
		return nil, errors.New("redisstore: a Redis client is needed")
	}
	if strings.ContainsAny(prefix, `{}*?[]\`) || !strings.HasSuffix(prefix, ":") {
		return nil, fmt.Errorf("redisstore: Options.Prefix %q must end in a colon, as shop: does, and have no braces or glob characters", prefix)
	}
	tag := prefix + "{readonly}:"
	return &Store{rdb: rdb, state: tag + "state", acks: tag + "acks", channels: tag + "changed"}, nil
}

// saveScript keeps {epoch, blob} in a hash, because cjson would round epochs above 2^53. It begins with a write: a full Redis
// refuses what may need room, unless the script has written before, and the switch must work there, too.
var saveScript = redis.NewScript(`
redis.call('HDEL', KEYS[1], '')
local have = redis.call('HGET', KEYS[1], 'epoch')
if have and (#have > #ARGV[1] or (#have == #ARGV[1] and have >= ARGV[1])) then
  return redis.call('HGET', KEYS[1], 'state')
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'state', ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[1])
return ARGV[2]`)

// Load implements readonly.Store.
func (s *Store) Load(ctx context.Context) (readonly.State, error) {
	blob, err := s.rdb.HGet(ctx, s.state, "state").Result()
	if errors.Is(err, redis.Nil) {
		return readonly.State{}, nil
	}
	if err != nil {
		return readonly.State{}, err
	}
	return decode(blob)
}

// Save implements readonly.Store.
func (s *Store) Save(ctx context.Context, state readonly.State) (readonly.State, error) {
	blob, err := json.Marshal(state)
	if err != nil {
		return readonly.State{}, err
	}
	text, err := saveScript.Run(ctx, s.rdb, []string{s.state}, strconv.FormatUint(state.Epoch, 10), blob, s.channels).Text()
	if errors.Is(err, redis.Nil) {
		return readonly.State{}, foreign(errors.New("an epoch without a state"))
	}
	if err != nil {
		return readonly.State{}, err
	}
	won, err := decode(text)
	if err == nil && won.Epoch < state.Epoch {
		// Else who changes the mode would try for ever to get past it.
		return readonly.State{}, foreign(errors.New("its two epochs differ"))
	}
	return won, err
}

// maxEpoch is beyond what any service reaches, and far from the largest number: an epoch there would leave none for the
// next change, and instances that had obeyed it would write it back.
const maxEpoch = 1 << 62

func decode(blob string) (state readonly.State, err error) {
	err = json.Unmarshal([]byte(blob), &state)
	if err == nil && state.Epoch > maxEpoch {
		err = fmt.Errorf("epoch %d", state.Epoch)
	}
	if err != nil {
		return readonly.State{}, foreign(err)
	}
	return state, nil
}

func foreign(err error) error {
	return fmt.Errorf("redisstore: the stored state is not ours, delete its key or choose another Options.Prefix: %w", err)
}

// Watch implements readonly.Store.
func (s *Store) Watch(ctx context.Context, changed func()) error {
	sub := s.rdb.Subscribe(ctx, s.channels)
	defer sub.Close()
	stop := context.AfterFunc(ctx, func() { sub.Close() })
	defer stop()
	for {
		msg, err := sub.Receive(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("redisstore: subscription lost: %w", err)
		}
		switch msg.(type) {
		case *redis.Subscription, *redis.Message:
			changed()
		}
	}
}

// acknowledgeScript stores when the word was given and until when it counts, by the server's clock. An instance that is
// new, or leaves, forgets those that no longer do; were it each one with each word, hundreds would cost the square of that.
// It begins with a write, as saveScript does.
var acknowledgeScript = redis.NewScript(`
redis.call('HDEL', KEYS[1], '')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[2] == '0' or redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    if tonumber(string.match(all[i + 1], '^%d+') or 0) <= now then redis.call('HDEL', KEYS[1], all[i]) end
  end
end
if ARGV[2] == '0' then return redis.call('HDEL', KEYS[1], ARGV[1]) end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f ', now + ARGV[2], now) .. ARGV[3])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then -- others may count for longer
	redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1`)

var acknowledgedScript = redis.NewScript(`
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local all, living = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #all, 2 do
  if tonumber(string.match(all[i + 1], '^%d+') or 0) > now then
    local given, ack = string.match(all[i + 1], '^%d+ (%d+) (.*)$')
    living[#living + 1] = all[i]
    living[#living + 1] = string.format('%.0f', now - (given or now))
    living[#living + 1] = ack or ''
  else
    redis.call('HDEL', KEYS[1], all[i])
  end
end
return living`)

// Acknowledge implements readonly.Store.
func (s *Store) Acknowledge(ctx context.Context, instance string, ack readonly.Ack, ttl time.Duration) error {
	blob, err := json.Marshal(ack)
	if err != nil {
		return err
	}
	return acknowledgeScript.Run(ctx, s.rdb, []string{s.acks}, instance, ttl.Milliseconds(), blob).Err()
}

// Acknowledged implements readonly.Store.
func (s *Store) Acknowledged(ctx context.Context) (map[string]readonly.Ack, error) {
	fields, err := acknowledgedScript.Run(ctx, s.rdb, []string{s.acks}).StringSlice()
	if err != nil {
		return nil, err
	}
	acks := make(map[string]readonly.Ack, len(fields)/3)
	for i := 0; i+2 < len(fields); i += 3 {
		var ack readonly.Ack
		age, err := strconv.ParseInt(fields[i+1], 10, 64)
		if err := errors.Join(err, json.Unmarshal([]byte(fields[i+2]), &ack)); err != nil {
			return nil, fmt.Errorf("redisstore: the acknowledgement of %q is not ours: %w", fields[i], err)
		}
		ack.Age = time.Duration(age) * time.Millisecond
		acks[fields[i]] = ack
	}
	return acks, nil
}
