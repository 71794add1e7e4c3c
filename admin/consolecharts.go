package admin

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	historyPath = "/api/v1/performance/capacity/history"
	maxPoints   = 240 // of one line: more than its card has pixels for would be sent for nothing
)

// historyReply is what the page takes of historyPath's reply.
type historyReply struct {
	Start       time.Time
	StepSeconds float64 `json:"step_seconds"`
	Series      []historySeries
}

type historySeries struct {
	Metric            string
	Scope             map[string]string
	Unit              string
	Warning, Critical *float64
	Values            []*float64
}

// charts is the history of all metrics as the page's script takes it.
type charts struct {
	Start  int64    `json:"start"` // Unix seconds of the first value
	Step   float64  `json:"step"`  // seconds
	Charts []*chart `json:"charts"`
}

// chart is one metric, a line for each scope.
type chart struct {
	Key      string     `json:"key"`
	Unit     string     `json:"unit"`
	Top      figure     `json:"top"` // of the scale, which begins at 0
	Warning  *figure    `json:"warning"`
	Critical *figure    `json:"critical"`
	Names    []string   `json:"names"`
	Values   [][]figure `json:"values"`
}

// figure is a number of four digits, or null if it is none.
type figure float64

func (f figure) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, float64(f), 'g', 4, 64), nil
}

func newFigure(v *float64) figure {
	if v == nil {
		return figure(math.NaN())
	}
	return figure(*v)
}

func newCharts(h *historyReply) *charts {
	out := &charts{Start: h.Start.Unix(), Step: h.StepSeconds, Charts: []*chart{}}
	longest := 0
	for _, s := range h.Series {
		longest = max(longest, len(s.Values))
	}
	if longest < 2 || !(h.StepSeconds > 0) {
		return out
	}
	stride := (longest + maxPoints - 1) / maxPoints
	out.Step *= float64(stride)
	byKey := map[string]*chart{}
	series := slices.Clone(h.Series)
	slices.SortStableFunc(series, func(a, b historySeries) int { return strings.Compare(scopeName(a.Scope), scopeName(b.Scope)) })
	for _, s := range series {
		c := byKey[s.Metric]
		if c == nil {
			c = &chart{Key: s.Metric, Unit: s.Unit}
			if s.Warning != nil && s.Critical != nil {
				warning, critical := figure(*s.Warning), figure(*s.Critical)
				c.Warning, c.Critical = &warning, &critical
			}
			byKey[s.Metric] = c
		}
		c.Names = append(c.Names, scopeName(s.Scope))
		c.Values = append(c.Values, thin(s.Values, stride, c.below()))
	}
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		c := byKey[key]
		c.Top = c.top()
		out.Charts = append(out.Charts, c)
	}
	return out
}

// below says that small values are the bad ones.
func (c *chart) below() bool { return c.Warning != nil && *c.Critical < *c.Warning }

// thin keeps the worst of each stride, so that a short spike stays visible.
func thin(values []*float64, stride int, below bool) []figure {
	var out []figure
	for part := range slices.Chunk(values, stride) {
		worst := newFigure(nil)
		for _, v := range part {
			if f := newFigure(v); math.IsNaN(float64(worst)) || below && f < worst || !below && f > worst {
				worst = f
			}
		}
		out = append(out, worst)
	}
	return out
}

// top makes the values fill the card, and the thresholds too where they are not so far away that the values would be
// a flat line below them: those are drawn at the upper edge.
func (c *chart) top() figure {
	most := 0.0
	for _, line := range c.Values {
		for _, v := range line {
			if !math.IsNaN(float64(v)) {
				most = max(most, float64(v))
			}
		}
	}
	if c.below() && c.Unit == "ratio" {
		return 1
	}
	top := most * 1.2
	for _, limit := range []*figure{c.Warning, c.Critical} {
		if limit != nil && (most == 0 || float64(*limit) <= 2.5*most) {
			top = max(top, float64(*limit)*1.2)
		}
	}
	if c.Unit == "ratio" && most <= 1 {
		top = min(top, 1)
	}
	if top <= 0 || math.IsInf(top, 0) {
		return 1
	}
	return figure(top)
}

// find returns the chart of a metric, or nil.
func (c *charts) find(key string) *chart {
	if c != nil {
		if i := slices.IndexFunc(c.Charts, func(c *chart) bool { return c.Key == key }); i >= 0 {
			return c.Charts[i]
		}
	}
	return nil
}

// span says which time the charts cover.
func (c *charts) span() string {
	longest := 0
	for _, chart := range c.Charts {
		for _, line := range chart.Values {
			longest = max(longest, len(line))
		}
	}
	return seconds(math.Round(float64(longest) * c.Step))
}
