package dbsplit

import (
	"fmt"
	"slices"
	"time"
)

// sortPartitions orders by lower bound, open ones first and the default last.
func sortPartitions(all []Partition) {
	slices.SortFunc(all, func(a, b Partition) int {
		if a.Default != b.Default {
			if a.Default {
				return 1
			}
			return -1
		}
		return a.From.Compare(b.From)
	})
}

// gaps returns the ranges that lie between partitions without belonging to one. all is sorted.
func gaps(all []Partition) []Partition {
	var found []Partition
	for i := 1; i < len(all) && !all[i].Default; i++ {
		if before := all[i-1]; before.To.Before(all[i].From) {
			found = append(found, Partition{From: before.To, To: all[i].From})
		}
	}
	return found
}

// month is one month that has no partition yet.
type month struct {
	name     string
	from, to time.Time
}

// monthOf returns the month of a time in UTC, with the name of table's partition for it.
func monthOf(table string, t time.Time) month {
	from := time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
	return month{fmt.Sprintf("%s_%04d_%02d", table, from.Year(), from.Month()), from, from.AddDate(0, 1, 0)}
}

// missingMonths returns the months without a partition among the present one and the ahead following ones, in UTC. A
// month that is covered in part only is an error: a table of weekly partitions is not to get monthly ones.
func missingMonths(table string, have []Partition, now time.Time, ahead int) ([]month, error) {
	now = now.UTC()
	var missing []month
	for i := range ahead + 1 {
		m := monthOf(table, time.Date(now.Year(), now.Month()+time.Month(i), 1, 0, 0, 0, 0, time.UTC))
		covered, err := m.covered(have)
		if err != nil {
			return nil, err
		}
		if !covered {
			missing = append(missing, m)
		}
	}
	return missing, nil
}

func (m month) covered(have []Partition) (bool, error) {
	for _, p := range have {
		if p.Default || !p.To.IsZero() && !p.To.After(m.from) || !p.From.IsZero() && !p.From.Before(m.to) {
			continue
		}
		if (p.From.IsZero() || !p.From.After(m.from)) && (p.To.IsZero() || !p.To.Before(m.to)) {
			return true, nil
		}
		return false, fmt.Errorf("partition %s covers a part of %04d-%02d only", p.Name, m.from.Year(), m.from.Month())
	}
	return false, nil
}
