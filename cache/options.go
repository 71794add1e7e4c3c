package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/robfig/cron/v3"
)

// Options tune a Store.
type Options struct {
	// Prefix begins every key. It is the store's whole territory: pattern "*" means Prefix + "*". At most 64 bytes,
	// ending in a colon, without glob characters and braces. Zero means "app:".
	Prefix string
	// RedisTimeout bounds each call to Redis on behalf of one caller. Sweeps have it for each of their steps, at least
	// a second. Zero means 250 ms.
	RedisTimeout time.Duration
	// LoadTimeout bounds a loader, whatever becomes of its callers. Zero means 10 s.
	LoadTimeout time.Duration
	// MaxLoads is how many loaders run at a time in this process. Zero means 64.
	MaxLoads int
	// AdaptLoads lowers that number while loaders take longer than they did, by a few each second down to an eighth, and raises
	// it again: an origin that is overloaded answers nobody. What has lasted for minutes counts as usual. Zero means that it
	// stays.
	AdaptLoads bool
	// Silence is how long a master may say nothing before what views keep in the process of its keys is not used: the
	// longest time for which a process that is cut off from Redis can serve what others have invalidated. Zero means 1 s.
	Silence time.Duration
	// LoadWait is how long a load waits for its turn before it is refused with ErrShed. Zero means 1 s; negative
	// refuses at once.
	LoadWait time.Duration
	// MaxValueBytes is the largest encoded value that is stored; a larger one is returned and not stored. Zero means
	// 1 MiB.
	MaxValueBytes int
	// Window is the time that HitRate looks back. Zero means 5 minutes.
	Window time.Duration
	// WarmSchedule is when Run warms all declared sets, once for all processes, as a cron specification such as
	// "0 */6 * * *". Zero means never.
	WarmSchedule string
	// WarmBeforeReady makes Run warm all declared sets when it begins, and Ready fail meanwhile, for so long at most. Zero
	// means that Ready does not wait.
	WarmBeforeReady time.Duration
	// WarmGate says, between steps of a warming, what the origin suffers from now: while it returns an error, such as
	// that the database's pool is nearly used up or its replicas lag, the warming waits. Zero means that it never does.
	WarmGate func(ctx context.Context) error
	// Verify is the share of the hits of Load and LoadMany that are compared with what the loader returns, reading where
	// everything is seen, in the background and within MaxLoads: 0.001 is one in a thousand. What an entry's position had is
	// not read: a value that is the same now has not been missed, and one that has changed since has an invalidation. Get and
	// GetMany have no loader to compare with. Differences that no invalidation takes away
	// within a second are counted and logged. Zero means none.
	Verify float64
	// Logger gets background failures and what was refused. Zero means that nothing is logged.
	Logger *slog.Logger
	// Registerer gets the store's series. Zero means counted, not exported.
	Registerer prometheus.Registerer
}

const (
	defaultPrefix  = "app:"
	maxPrefixBytes = 64
	maxKeyBytes    = 1024
)

// foreign are the prefixes of those who may share the Redis: queues, sessions, flags.
var foreign = []string{"asynq:", "scs:", "scaleaware:"}

func (o *Options) copy() Options {
	if o == nil {
		return Options{}
	}
	return *o
}

func (o Options) withDefaults() Options {
	o.Silence = cmp.Or(o.Silence, time.Second)
	o.Prefix = cmp.Or(o.Prefix, defaultPrefix)
	o.RedisTimeout = cmp.Or(o.RedisTimeout, 250*time.Millisecond)
	o.LoadTimeout = cmp.Or(o.LoadTimeout, 10*time.Second)
	o.MaxLoads = cmp.Or(o.MaxLoads, 64)
	o.LoadWait = cmp.Or(o.LoadWait, time.Second)
	o.MaxValueBytes = cmp.Or(o.MaxValueBytes, 1<<20)
	o.Window = cmp.Or(o.Window, 5*time.Minute)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func (o Options) validate() error {
	errs := []error{checkPrefix(o.Prefix)}
	positive := func(name string, ok bool) {
		if !ok {
			errs = append(errs, fmt.Errorf("cache: Options.%s is negative, leave it zero for its default", name))
		}
	}
	positive("RedisTimeout", o.RedisTimeout > 0)
	positive("LoadTimeout", o.LoadTimeout > 0)
	positive("MaxLoads", o.MaxLoads > 0)
	positive("MaxValueBytes", o.MaxValueBytes > 0)
	positive("Window", o.Window > 0)
	positive("WarmBeforeReady", o.WarmBeforeReady >= 0)
	if !(o.Verify >= 0 && o.Verify <= 1) {
		errs = append(errs, fmt.Errorf("cache: Options.Verify is %v, give a share from 0 to 1", o.Verify))
	}
	positive("Silence", o.Silence > 0)
	if o.Silence > 0 && o.Silence < 3*beatEvery {
		errs = append(errs, fmt.Errorf("cache: Options.Silence is %v, give at least %v: masters are asked every %v", o.Silence, 3*beatEvery, beatEvery))
	}
	if o.Window > 0 && o.Window < windowSlots*time.Second {
		errs = append(errs, fmt.Errorf("cache: Options.Window is %v, give at least %v", o.Window, windowSlots*time.Second))
	}
	if o.MaxValueBytes > 64<<20 {
		errs = append(errs, fmt.Errorf("cache: Options.MaxValueBytes is %d, give at most 64 MiB: larger values block Redis", o.MaxValueBytes))
	}
	if o.WarmSchedule != "" {
		if _, err := cron.ParseStandard(o.WarmSchedule); err != nil {
			errs = append(errs, fmt.Errorf("cache: Options.WarmSchedule %q, want a form such as \"0 */6 * * *\": %w", o.WarmSchedule, err))
		}
	}
	return errors.Join(errs...)
}

func checkPrefix(prefix string) error {
	const option = "cache: Options.Prefix"
	switch {
	case len(prefix) > maxPrefixBytes:
		return fmt.Errorf("%s has %d bytes, give at most %d", option, len(prefix), maxPrefixBytes)
	case strings.ContainsAny(prefix, `*?[]\{}`):
		return fmt.Errorf("%s %q: leave out glob characters and braces, they would reach other keys or pin all keys to one slot", option, prefix)
	case strings.ContainsFunc(prefix, isControl):
		return fmt.Errorf("%s %q: leave out control characters and blanks", option, prefix)
	case len(prefix) < 2 || !strings.HasSuffix(prefix, ":"):
		return fmt.Errorf("%s %q: end it with a colon, such as \"app:\", so that no other prefix begins with it", option, prefix)
	}
	for _, f := range foreign {
		if strings.HasPrefix(prefix, f) || strings.HasPrefix(f, prefix) {
			return fmt.Errorf("%s %q covers keys of others (%s*), choose one of your own, such as \"app:\"", option, prefix, f)
		}
	}
	return nil
}

func isControl(r rune) bool { return r <= ' ' || r == 0x7f }
