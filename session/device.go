package session

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// maxDevices is how many a principal's list has at most. Sessions beyond it go on; only log-out everywhere ends them.
	maxDevices = 100
	// maxAgent is how much of a User-Agent is kept.
	maxAgent = 200
	// settled is how old an entry is before it is taken for that of a session that has ended: it is made before the session
	// is stored.
	settled = time.Minute
)

// entry is what Redis has of a device: where its session is stored, and what is told of it.
type entry struct {
	Name   string `json:"n"`
	Hashed bool   `json:"h"`
	Agent  string `json:"a,omitempty"`
}

func (e entry) place() place { return place{e.Name, e.Hashed} }

// Device is one log-in of a principal.
type Device struct {
	// ID names it in LogoutDevice. It is nothing to log in with, and stays when the token is renewed.
	ID string
	// Since is when it logged in, or was renewed last, by Redis's clock.
	Since time.Time
	// Agent is the User-Agent that logged in, cut to 200 bytes.
	Agent string
	// Current says that it is the one of the context's session.
	Current bool

	at place
}

// Devices lists where a principal is logged in, the latest first, at most a hundred. The list is a help for people, not what
// decides: sessions that have ended are not in it, and one that Redis has forgotten to list comes back when it is used.
func (m *Manager) Devices(ctx context.Context, principal string) ([]Device, error) {
	if m.principals == nil {
		return nil, errOtherStore
	}
	call, cancel := context.WithTimeout(ctx, m.opts.StoreTimeout)
	defer cancel()
	all, err := m.principals.devices(call, principal)
	if q := m.request(ctx); q != nil && err == nil {
		_ = q.fetch()
		for i := range all {
			all[i].Current = all[i].ID == q.text(deviceKey)
		}
	}
	return all, err
}

// LogoutDevice ends one session of a principal, at once and on every instance. It returns ErrNoDevice if there is none.
func (m *Manager) LogoutDevice(ctx context.Context, principal, id string) error {
	if m.principals == nil {
		return errOtherStore
	}
	err := m.principals.logout(ctx, principal, id)
	if err == nil {
		m.count("revoke", "ok")
	}
	return err
}

// LogoutEverywhere ends all sessions of a principal, on every instance: those that are being used, those that are being
// logged in, and those that no list has. The requests in flight cannot store anything any more. It costs two commands; after them
// the list is emptied, and the data of the sessions that were listed are deleted: what Redis fails to delete lets nobody in, and
// expires. Whoever is to stay logged in, after a change of the password for example, is logged in again by Login, in the same
// request. Other instances notice at once if they run Manager.Run, within 300 ms and a round trip if Redis loses the news, and
// within a second without Run; see Options.Strict. It returns how many devices were listed.
func (m *Manager) LogoutEverywhere(ctx context.Context, principal string) (devices int, err error) {
	switch {
	case m.principals == nil:
		return 0, errOtherStore
	case principal == "":
		return 0, errors.New("session: LogoutEverywhere needs a principal, an empty one means nobody")
	}
	generation, devices, err := m.principals.revoke(ctx, principal)
	if q := m.request(ctx); q != nil && err == nil {
		q.mu.Lock()
		q.revoked, q.revokedTo = principal, generation
		q.mu.Unlock()
	}
	return devices, err
}

// devices reads the list and takes out of it what has ended.
func (p *principals) devices(ctx context.Context, principal string) ([]Device, error) {
	keys := p.keys(principal)
	raw, err := p.store.rdb.HGetAll(ctx, keys[1]).Result()
	if err != nil {
		return nil, p.store.failed("devices", err)
	}
	all, bad := parseDevices(raw)
	gone := map[string]string{}
	for _, id := range bad {
		gone[id] = raw[id]
	}
	if len(all) == 0 {
		_, err = p.drop(ctx, keys[1], gone)
		return nil, err
	}
	exist := make([]*redis.IntCmd, len(all))
	_, err = p.store.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, d := range all {
			exist[i] = pipe.Exists(ctx, p.store.key(d.at))
		}
		return nil
	})
	if err != nil {
		return nil, p.store.failed("devices", err)
	}
	live, unborn := all[:0], 0
	for i, d := range all {
		switch {
		case len(live)+unborn >= maxDevices:
			gone[d.ID] = raw[d.ID]
		case exist[i].Val() > 0:
			live = append(live, d)
		case time.Since(d.Since) > settled:
			gone[d.ID] = raw[d.ID]
		default:
			unborn++
		}
	}
	p.store.count("devices", "ok")
	_, err = p.drop(ctx, keys[1], gone)
	return live, err
}

// drop takes out of a list what is still as it was read, and reports whether everything was, or was gone.
func (p *principals) drop(ctx context.Context, key string, entries map[string]string) (same bool, err error) {
	if len(entries) == 0 {
		return true, nil
	}
	args := make([]any, 0, 2*len(entries))
	for id, text := range entries {
		args = append(args, id, text)
	}
	others, err := dropScript.Run(ctx, p.store.rdb, []string{key}, args...).Int()
	if err != nil {
		return false, p.store.failed("devices", err)
	}
	return others == 0, nil
}

// parseDevices returns the latest first, and the ids of what is no device.
func parseDevices(raw map[string]string) (all []Device, bad []string) {
	for id, text := range raw {
		at, body, _ := strings.Cut(text, " ")
		ms, err := strconv.ParseInt(at, 10, 64)
		var e entry
		if err != nil || json.Unmarshal([]byte(body), &e) != nil || !wellFormed(e.Name) {
			bad = append(bad, id)
			continue
		}
		all = append(all, Device{ID: id, Since: time.UnixMilli(ms), Agent: e.Agent, at: e.place()})
	}
	slices.SortFunc(all, func(a, b Device) int {
		return cmp.Or(b.Since.Compare(a.Since), strings.Compare(a.ID, b.ID))
	})
	return all, bad
}

func (p *principals) logout(ctx context.Context, principal, id string) error {
	ctx, cancel := detached(ctx, p.store.opts.StoreTimeout)
	defer cancel()
	key := p.keys(principal)[1]
	for was := ""; ; {
		text, err := p.store.rdb.HGet(ctx, key, id).Result()
		switch {
		case errors.Is(err, redis.Nil) && was == "":
			return ErrNoDevice
		case errors.Is(err, redis.Nil):
			return nil
		case err != nil:
			return p.store.failed("devices", err)
		}
		was = text
		entries := map[string]string{id: text}
		all, _ := parseDevices(entries)
		for _, d := range all {
			if err := p.store.delete(ctx, deleteScript, d.at, ended); err != nil {
				return err
			}
		}
		// A renewal that has got past the tombstone has entered its new place before.
		if same, err := p.drop(ctx, key, entries); same || err != nil {
			return err
		}
	}
}

// revoke begins another generation and returns it, with the number of devices that were listed.
func (p *principals) revoke(ctx context.Context, principal string) (string, int, error) {
	ctx, cancel := detached(ctx, p.store.opts.StoreTimeout)
	defer cancel()
	reply, err := revokeScript.Run(ctx, p.store.rdb, p.keys(principal), rand.Text()+revokedMark, p.store.opts.Lifetime.Milliseconds(),
		p.store.channel(), principalNews(principal)).Slice()
	if err != nil {
		return "", 0, p.store.failed("revoke", err)
	}
	p.store.count("revoke", "ok")
	p.cache.forget(hash(principal))
	p.store.recent.forget("") // whose they are it does not know
	generation, _ := reply[0].(string)
	pairs, _ := reply[1].([]any)
	raw := map[string]string{}
	for pair := range slices.Chunk(pairs, 2) {
		id, _ := pair[0].(string)
		raw[id], _ = pair[len(pair)-1].(string)
	}
	if err := p.enterLatest(ctx, principal); err != nil {
		p.store.opts.Logger.WarnContext(ctx, "session: an instance that misses the news of a log-out everywhere may not notice it for ten seconds", "error", err)
	}
	if _, err := p.drop(ctx, p.keys(principal)[1], raw); err != nil {
		p.store.opts.Logger.WarnContext(ctx, "session: sessions that were ended stay listed for as long as they have data", "error", err)
	}
	// They are nobody's already. Without their data an instance that has missed the news lets nobody in either.
	all, _ := parseDevices(raw)
	var failed error
	for _, d := range all {
		if err := p.store.delete(ctx, deleteScript, d.at, ended); err != nil {
			failed = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	if failed != nil {
		p.store.opts.Logger.WarnContext(ctx, "session: the data of sessions that were ended stay until they expire", "error", failed)
	}
	return generation, len(all), nil
}
