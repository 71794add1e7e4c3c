package metrics

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// reading is what one instance has counted, reduced to what the table needs.
type reading struct {
	// Version is of this format.
	Version int `json:"v"`
	// Started and At are in milliseconds of the instance's own clock: only their differences mean anything elsewhere.
	Started int64 `json:"started"`
	At      int64 `json:"at"`
	// Points are as collected since Started.
	Points points `json:"points"`
	// Delivery is of instances that notify.
	Delivery *delivery `json:"delivery,omitempty"`
	// Vitals are the resources' use, or nil.
	Vitals *vitals `json:"vitals,omitempty"`
}

const (
	snapshotVersion = 2
	// maxSnapshot bounds what is written to and read from the store: far above what the table makes of 50 queues.
	maxSnapshot = 256 << 10
	maxScopes   = 512
)

func (r *reading) age() time.Duration { return time.Duration(r.At-r.Started) * time.Millisecond }

// encode refuses what is too large: scopes come from labels.
func (r *reading) encode() ([]byte, error) {
	blob, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("metrics: encode a snapshot: %w", err)
	}
	if len(blob) > maxSnapshot {
		return nil, fmt.Errorf("metrics: this instance's snapshot has %d bytes and at most %d are shared: look for a label (queue, pool, server, cache) with too many values", len(blob), maxSnapshot)
	}
	return blob, nil
}

// decode takes nothing for granted: other versions write to the same store, and so may anybody else. What the table
// does not know, or knows with another shape, is left out.
func decode(blob []byte, widths map[string]int) (*reading, error) {
	if len(blob) > maxSnapshot {
		return nil, fmt.Errorf("metrics: a snapshot has %d bytes, at most %d are read", len(blob), maxSnapshot)
	}
	var r reading
	if err := json.Unmarshal(blob, &r); err != nil {
		return nil, fmt.Errorf("metrics: a snapshot is not one of ours: %w", err)
	}
	if r.Version != snapshotVersion {
		return nil, fmt.Errorf("metrics: a snapshot has version %d, this program reads %d", r.Version, snapshotVersion)
	}
	if r.At < r.Started {
		return nil, errors.New("metrics: a snapshot is older than its process")
	}
	if r.Delivery != nil && len(r.Delivery.Groups) > maxGroups {
		return nil, fmt.Errorf("metrics: a snapshot has %d groups of alerts", len(r.Delivery.Groups))
	}
	if r.Vitals != nil {
		if err := r.Vitals.check(); err != nil {
			return nil, err
		}
	}
	for id, scopes := range r.Points {
		width, known := widths[id]
		if !known {
			delete(r.Points, id)
			continue
		}
		if len(scopes) > maxScopes {
			return nil, fmt.Errorf("metrics: a snapshot has %d values of %s", len(scopes), id)
		}
		for scope, numbers := range scopes {
			if len(numbers) != width {
				delete(scopes, scope)
				continue
			}
			for _, n := range numbers {
				if !(n >= 0 && n <= largest) {
					return nil, fmt.Errorf("metrics: a snapshot counts %g of %s", n, id)
				}
			}
		}
	}
	return &r, nil
}

func widths(table []KeyMetric) map[string]int {
	w := map[string]int{}
	for _, m := range table {
		w[m.ID] = m.width()
	}
	return w
}
