package cache

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/scaleaware/scaleaware/admin"
)

const operationsPath = "/api/v1/performance/cache/"

type invalidateBody struct {
	// Pattern is in view:key form, "*" for everything.
	Pattern string `json:"pattern,omitempty"`
	// Tags, in place of a pattern, invalidate all entries that have one of them.
	Tags []string `json:"tags,omitempty"`
	// Pause, with a pattern, goes easy on Redis as that of a TTL extension does. Empty means none.
	Pause string `json:"pause,omitempty"`
}

// tagsReport says what an invalidation by tags did.
type tagsReport struct {
	// Tags are those that were invalidated.
	Tags []string `json:"tags"`
	// DryRun says that nothing was done.
	DryRun bool `json:"dry_run"`
	// Complete says that all were.
	Complete bool `json:"complete"`
}

type extendBody struct {
	// Factor multiplies lifetimes; zero means 2, or 1 with By.
	Factor float64 `json:"factor,omitempty"`
	// By is added to them, such as "10m".
	By string `json:"by,omitempty"`
	// Pattern is in view:key form; empty means "*".
	Pattern string `json:"pattern,omitempty"`
	// Pause goes easy on Redis: it is waited for each hundred entries, such as "5ms", up to 20ms. Empty means none.
	Pause string `json:"pause,omitempty"`
}

// maxPause keeps an operation over a million keys of a master below the five minutes that admin.Serve has for its reply.
const maxPause = 20 * time.Millisecond

type serversReply struct {
	// Servers are the masters.
	Servers []Server `json:"servers"`
	// HotKeys are the keys that this process looks up in Redis most.
	HotKeys []HotKey `json:"hot_keys"`
}

// Operations returns the cache's operations for admin.New.
func (s *Store) Operations() []admin.Operation {
	return []admin.Operation{
		{
			Method: http.MethodPost, Path: operationsPath + "invalidate", ID: "cache.invalidate", Role: admin.Operator,
			Summary: "Remove cache entries by pattern or by tags, in this cache's own prefix only.",
			Body:    invalidateBody{}, Reply: Report{}, Do: s.doInvalidate,
		},
		{
			Method: http.MethodPost, Path: operationsPath + "warm", ID: "cache.warm", Role: admin.Operator,
			Summary: "Load the declared sets into the cache; entries that are there are left alone.",
			Params: []admin.Param{
				{Name: "wait", In: "query", Type: "boolean", Description: "Answer when it is done, with the report, instead of 202 at once."},
				{Name: "set", In: "query", Type: "string", Description: "Names of sets, separated by commas. All, if not given."},
			},
			Do: s.doWarm,
		},
		{
			Method: http.MethodGet, Path: operationsPath + "hit-rate", ID: "cache.hit-rate",
			Summary: "Hit rate of all running processes by view and result, over a window.",
			Reply:   HitRate{},
			Do:      func(ctx context.Context, _ *admin.Call) (any, error) { return s.FleetHitRate(ctx), nil },
		},
		{
			Method: http.MethodGet, Path: operationsPath + "servers", ID: "cache.servers",
			Summary: "Memory, evictions and policy of each Redis master, what will hurt, and the keys that this process looks up there most.",
			Reply:   serversReply{},
			Do: func(ctx context.Context, _ *admin.Call) (any, error) {
				servers, err := s.Servers(ctx)
				if err != nil && len(servers) == 0 {
					return nil, admin.Unavailable(err, "no Redis master can be found: %s", text(err))
				}
				return serversReply{servers, s.HotKeys(20)}, nil
			},
		},
		{
			Method: http.MethodPost, Path: operationsPath + "extend-ttls", ID: "cache.extend-ttls", Role: admin.Operator,
			Summary: "Lengthen the TTLs of entries, present and new, until taken back; twice as long if not said otherwise.",
			Body:    extendBody{}, Reply: Report{}, Do: s.doExtend,
		},
		{
			Method: http.MethodDelete, Path: operationsPath + "extend-ttls", ID: "cache.restore-ttls", Role: admin.Operator,
			Summary: "Take TTL extensions back.",
			Params: []admin.Param{
				{Name: "pause", In: "query", Type: "string", Description: "Go easy on Redis: it is waited for each hundred entries, such as 5ms, up to 20ms. None, if not given."},
			},
			Reply: Report{}, Do: s.doRestore,
		},
	}
}

func (s *Store) doInvalidate(ctx context.Context, call *admin.Call) (any, error) {
	body := admin.Body[invalidateBody](call)
	if len(body.Tags) > 0 {
		if body.Pattern != "" {
			return nil, admin.Invalid("tags", "give a pattern or tags, not both")
		}
		if body.Pause != "" {
			return nil, admin.Invalid("pause", "tags are invalidated without a sweep, give no pause")
		}
		return s.doInvalidateTags(ctx, call, body.Tags)
	}
	pause, err := pauseOf(body.Pause)
	if err != nil {
		return nil, err
	}
	report, err := s.InvalidateWith(ctx, Invalidation{Pattern: body.Pattern, Pause: pause, DryRun: call.DryRun})
	return report, problem(report, err)
}

func (s *Store) doRestore(ctx context.Context, call *admin.Call) (any, error) {
	pause, err := pauseOf(call.Query("pause"))
	if err != nil {
		return nil, err
	}
	report, err := s.RestoreTTLsWith(ctx, Restoration{Pause: pause, DryRun: call.DryRun})
	return report, problem(report, err)
}

// pauseOf reads a pause; an empty text is none.
func pauseOf(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	pause, err := time.ParseDuration(text)
	if err != nil || pause < 0 || pause > maxPause {
		return 0, admin.Invalid("pause", "pause is %q, give a duration from 0s to %v, such as \"5ms\"", clip(text), maxPause)
	}
	return pause, nil
}

func (s *Store) doInvalidateTags(ctx context.Context, call *admin.Call, tags []string) (any, error) {
	if err := checkTags(tags); err != nil {
		return nil, admin.Invalid("tags", "%s", text(err))
	}
	report := tagsReport{Tags: tags, DryRun: call.DryRun}
	if call.DryRun {
		return report, nil
	}
	if err := s.InvalidateTags(ctx, tags...); err != nil {
		return report, admin.Unavailable(err, "some tags may not be invalidated, call again: %s", text(err))
	}
	report.Complete = true
	return report, nil
}

func (s *Store) doExtend(ctx context.Context, call *admin.Call) (any, error) {
	body := admin.Body[extendBody](call)
	x := Extension{Factor: body.Factor, Pattern: body.Pattern, DryRun: call.DryRun}
	if body.By != "" {
		by, err := time.ParseDuration(body.By)
		if err != nil {
			return nil, admin.Invalid("by", "by is %q, give a duration such as \"10m\"", clip(body.By))
		}
		x.By = by
	}
	var err error
	if x.Pause, err = pauseOf(body.Pause); err != nil {
		return nil, err
	}
	report, err := s.ExtendTTLs(ctx, x)
	return report, problem(report, err)
}

func (s *Store) doWarm(ctx context.Context, call *admin.Call) (any, error) {
	var names []string
	if list := call.Query("set"); list != "" {
		names = strings.Split(list, ",")
	}
	if _, err := s.warmSets(names); err != nil {
		return nil, admin.Invalid("set", "%s", text(err))
	}
	warm := func(ctx context.Context, progress func(WarmReport)) (any, error) {
		report, err := s.WarmWith(ctx, Warming{Sets: names, DryRun: call.DryRun, Progress: progress})
		if err != nil {
			return report, admin.Unavailable(err, "warming is not complete, warm again, it goes on where it was: %s", text(err))
		}
		return report, nil
	}
	if call.DryRun || call.Query("wait") == "true" {
		return warm(ctx, nil)
	}
	return call.Background.Start("cache.warm", s.opts.Prefix+strings.Join(names, ","), call.Actor,
		func(ctx context.Context, progress admin.Progress) (any, error) {
			return warm(ctx, func(r WarmReport) { progress(r) })
		})
}

// problem gives a sweep's error the status that it deserves.
func problem(report Report, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrPattern):
		return admin.Invalid("pattern", "%s", text(err))
	case errors.Is(err, ErrExtension):
		field := "factor"
		if strings.Contains(err.Error(), "by is") {
			field = "by"
		}
		return admin.Invalid(field, "%s", text(err))
	default:
		return admin.Unavailable(err, "the cache was swept in part only: %d keys changed, %d seen; call again. Nodes that failed: %s",
			report.Changed, report.Scanned, failedNodes(report))
	}
}

func failedNodes(report Report) string {
	var addrs []string
	for addr, n := range report.Nodes {
		if n.Error != "" {
			addrs = append(addrs, addr)
		}
	}
	if len(addrs) == 0 {
		return "those that could not be asked, see the log"
	}
	return strings.Join(addrs, ", ")
}

func text(err error) string { return strings.TrimPrefix(err.Error(), "cache: ") }
