package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/scaleaware/scaleaware/readonly"
)

// What stands in the state's place and is none changes nothing: whoever refused writes goes on refusing them, a change is
// an error that says what to do, at once, and when the key is gone all is as before.
func TestForgedStateIsNoState(t *testing.T) {
	const valid = `{"epoch":%s,"id":"forged","enabled":false}`
	for name, fields := range map[string][]any{
		"rubbish":                {"epoch", "1", "state", "rubbish"},
		"nothing":                {"epoch", "1", "state", ""},
		"half of one":            {"epoch", "1", "state", `{"epoch":9,"enabled":fal`},
		"NaN":                    {"epoch", "nan", "state", fmt.Sprintf(valid, "NaN")},
		"2^63-1":                 {"epoch", "9223372036854775807", "state", fmt.Sprintf(valid, "9223372036854775807")},
		"2^64-1":                 {"epoch", "18446744073709551615", "state", fmt.Sprintf(valid, "18446744073709551615")},
		"a word for the epoch":   {"epoch", "zzzzzzzzzzzzzzzzzzzzzzzzzzzz", "state", fmt.Sprintf(valid, "0")},
		"two epochs":             {"epoch", "9000000000000", "state", fmt.Sprintf(valid, "0")},
		"an epoch and no state":  {"epoch", "9000000000000"},
		"1 MB":                   {"epoch", "1", "state", `{"epoch":1,"reason":"` + strings.Repeat("x", 1<<20) + `"`},
		"a thousand levels deep": {"epoch", "9", "state", `{"epoch":9,"relief":{"before":[` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `]}`},
	} {
		t.Run(name, func(t *testing.T) {
			rdb := connect(t)
			switches := fleet(t, 2)
			if _, err := switches[0].Enable(t.Context(), readonly.Change{Reason: "real"}); err != nil {
				t.Fatal(err)
			}
			forge := func() {
				t.Helper()
				if err := errors.Join(rdb.Del(t.Context(), keyOf(t, "state")).Err(), rdb.HSet(t.Context(), keyOf(t, "state"), fields...).Err()); err != nil {
					t.Fatal(err)
				}
			}
			forge()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			began := time.Now()
			// It is healed by whoever knows better, or refused with what to do.
			if report, err := switches[0].Disable(ctx, "me"); err == nil && report.Enabled || err != nil && !strings.Contains(err.Error(), "delete its key") {
				t.Errorf("Disable: %+v, %v", report, err)
			} else if err != nil {
				for _, s := range switches {
					if s.AllowWrite(t.Context()) == nil {
						t.Error("a forged state let writes through")
					}
				}
			}
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("it took %v", took)
			}
			if err := rdb.Del(t.Context(), keyOf(t, "state")).Err(); err != nil {
				t.Fatal(err)
			}
			if _, err := switches[1].Enable(t.Context(), readonly.Change{Reason: "afterwards"}); err != nil {
				t.Errorf("with the key gone: %v", err)
			}
			until(t, func() bool { s, _ := switches[0].State(); return s.Reason == "afterwards" && s.Epoch < 100 })
		})
	}
}

// An acknowledgement that nobody gave counts for no instance, and is no reason to fail for ever.
func TestForgedAcknowledgements(t *testing.T) {
	store, rdb := open(t, connect(t)), connect(t)
	key := keyOf(t, "acks")
	if err := store.Acknowledge(t.Context(), "alive", readonly.Ack{Epoch: 7}, time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, forged := range []string{"", "rubbish", "nan nan {}", "-1 -1 {}", "1e309 0 {}", "\x00", "1 1 {}"} {
		if err := rdb.HSet(t.Context(), key, "forged", forged).Err(); err != nil {
			t.Fatal(err)
		}
		if acks, err := store.Acknowledged(t.Context()); err != nil || len(acks) != 1 || acks["alive"].Epoch != 7 {
			t.Errorf("%q: %v, %v", forged, acks, err)
		}
	}
	for _, forged := range []string{"9999999999999999 0 rubbish", "9999999999999999 0 {\"epoch\":-1}", strings.Repeat("9", 400) + " nan {}"} {
		if err := rdb.HSet(t.Context(), key, "forged", forged).Err(); err != nil {
			t.Fatal(err)
		}
		if acks, err := store.Acknowledged(t.Context()); err == nil && acks["forged"].Epoch != 0 || err != nil && !strings.Contains(err.Error(), `"forged" is not ours`) {
			t.Errorf("%q: %v, %v", forged, acks, err)
		}
	}
}
