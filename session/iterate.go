package session

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/scaleaware/scaleaware/redisclient"
)

// All implements scs.IterableStore.
func (s *Store) All() (map[string][]byte, error) { return s.AllCtx(context.Background()) }

// AllCtx implements scs.IterableCtxStore, for scs's Iterate. It scans every master and reads every session; StoreTimeout
// does not bound it.
func (s *Store) AllCtx(ctx context.Context) (map[string][]byte, error) {
	var mu sync.Mutex
	all := map[string][]byte{}
	scan := func(ctx context.Context, node *redis.Client) error {
		found, err := s.scan(ctx, node)
		mu.Lock()
		defer mu.Unlock()
		for token, b := range found {
			all[token] = b
		}
		return err
	}
	err := redisclient.EachMaster(ctx, s.rdb, scan)
	if err != nil {
		return nil, s.failed("scan", err)
	}
	return all, nil
}

func (s *Store) scan(ctx context.Context, node *redis.Client) (map[string][]byte, error) {
	found := map[string][]byte{}
	for cursor := uint64(0); ; {
		keys, next, err := node.Scan(ctx, cursor, s.opts.Prefix+"*", 500).Result()
		if err != nil {
			return nil, err
		}
		values := make([]*redis.StringCmd, len(keys))
		// A key may move or end between the scan and the read: one that is not there any more is left out.
		_, err = node.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, key := range keys {
				values[i] = p.Get(ctx, key)
			}
			return nil
		})
		if err != nil && ctx.Err() != nil {
			return nil, err
		}
		for i, key := range keys {
			b, err := values[i].Bytes()
			if err != nil && !errors.Is(err, redis.Nil) {
				return nil, err
			}
			if token, value, ok := s.listed(strings.TrimPrefix(key, s.opts.Prefix), b); err == nil && ok {
				found[token] = value
			}
		}
		if cursor = next; cursor == 0 {
			return found, nil
		}
	}
}

// listed returns the session that is stored under name, with what Iterate needs to destroy it. Data that cannot be decoded
// is left out: scs would end the iteration with it.
func (s *shelf) listed(name string, stored []byte) (token string, value []byte, ok bool) {
	if !wellFormed(name) {
		return "", nil, false
	}
	// Only the mark tells a hash from a token, where both may be.
	at := place{name, s.locator.form == Hashed || bytes.HasSuffix(stored, []byte(hashMark))}
	text, err := s.vault.open(at, string(stored))
	if err != nil {
		return "", nil, false
	}
	value = []byte(text)
	if _, _, err := (tolerant{s.codec}).Decode(value); err != nil {
		return "", nil, false
	}
	return s.locator.tokenAt(at), value, true
}
