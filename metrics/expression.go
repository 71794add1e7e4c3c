package metrics

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// expression is the metric's value in PromQL, of the series that filter, a list of matchers, leaves. Where nothing
// happens it is NaN or empty, and both are silence.
func (m KeyMetric) expression(window, filter string) string {
	by := m.by()
	total := "sum" + by + "(rate(" + m.events(both(m.among(), filter)) + "[" + window + "]))"
	switch m.Statistic {
	case Quantile:
		le := strings.Join(append(m.Scope[:len(m.Scope):len(m.Scope)], "le"), ", ")
		return fmt.Sprintf("histogram_quantile(%g, sum by (%s) (rate(%s_bucket%s[%s])))", m.Param, le, m.Series.Name, braces(filter), window)
	case Share:
		part := "sum" + by + "(rate(" + m.events(both(m.matcher(), filter)) + "[" + window + "]))"
		// A selection without a child yet is nothing of all, not unknown.
		return fmt.Sprintf("(%s or 0 * %s) / (%s > 0)", part, total, total)
	case OverPerMinute:
		upTo := m.Series.Name + "_bucket" + braces(both(leMatcher(m.Param), filter))
		return fmt.Sprintf("60 * (%s - sum%s(rate(%s[%s])))", total, by, upTo, window)
	case Rate:
		return total
	case RateOfOne:
		return "max" + by + "(rate(" + m.events(filter) + "[" + window + "]))"
	case Largest:
		return "max" + by + "(" + m.Series.Name + braces(both(m.matcher(), filter)) + ")"
	case LargestRatio:
		return fmt.Sprintf("max%s(%s%s / (%s%s > 0))", by, m.Series.Name, braces(filter), m.Of.Name, braces(filter))
	case GrowthPerDay:
		return fmt.Sprintf("86400 * deriv((max%s(%s%s))[6h:5m])", by, m.Series.Name, braces(filter))
	case Age:
		return fmt.Sprintf("time() - max%s(%s%s)", by, m.Series.Name, braces(filter))
	}
	panic("metrics: key metric " + m.ID + " has a statistic that is not in the table")
}

// by is such as " by (queue) ".
func (m KeyMetric) by() string {
	if len(m.Scope) == 0 {
		return ""
	}
	return " by (" + strings.Join(m.Scope, ", ") + ") "
}

// events is the counter that counts what the metric is about.
func (m KeyMetric) events(matcher string) string {
	name := m.Series.Name
	if m.Series.Kind == Histogram {
		name += "_count"
	}
	return name + braces(matcher)
}

// among matches what counts at all.
func (m KeyMetric) among() string {
	if len(m.Among) == 0 {
		return ""
	}
	values := make([]string, len(m.Among))
	for i, v := range m.Among {
		values[i] = regexp.QuoteMeta(v)
	}
	return m.Label + "=~" + strconv.Quote(strings.Join(values, "|"))
}

func (m KeyMetric) matcher() string {
	if m.Label == "" {
		return ""
	}
	if m.Not {
		return both(m.Label+"!="+strconv.Quote(m.Value), m.among())
	}
	return m.Label + "=" + strconv.Quote(m.Value)
}

func both(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + ", " + b
}

func braces(matcher string) string {
	if matcher == "" {
		return ""
	}
	return "{" + matcher + "}"
}

// leMatcher matches both spellings of a whole bound: Prometheus 3 and OpenMetrics write le="30.0".
func leMatcher(bound float64) string {
	text := strconv.FormatFloat(bound, 'f', -1, 64)
	if strings.Contains(text, ".") {
		return "le=" + strconv.Quote(text)
	}
	return "le=~" + strconv.Quote(text+`|`+text+`\.0`)
}

// summary is the alert's text. Scope labels are rendered by label.
func (m KeyMetric) summary(t Threshold, label func(name string) string) string {
	text := fmt.Sprintf("%s %s %s", m.Title, m.Op, m.Unit.format(t.Value))
	for _, name := range m.Scope {
		text += ", " + name + " " + label(name)
	}
	return text
}

// condition is when the alert is due, in PromQL over the records.
func (m KeyMetric) condition(t Threshold, table Table) string {
	past := func(bound float64) string {
		return fmt.Sprintf("%s %s %s", table.record(m), m.Op.symbol(), strconv.FormatFloat(bound, 'f', -1, 64))
	}
	expr := past(t.Value)
	if t.Clear != 0 {
		// A rule is evaluated before its own alert is written, so that this is what fired at the evaluation before.
		expr = fmt.Sprintf("(%s or %s and on (%s) %s{alertname=%q, alertstate=\"firing\", metric=%q, severity=%q})",
			expr, past(t.Clear), strings.Join(m.Scope, ", "), activeAlerts.Name, m.Alert, m.ID, t.Severity)
	}
	if m.MinEvents > 0 {
		expr += fmt.Sprintf(" and sum%s(increase(%s[%s])) >= %s", m.by(), m.events(m.among()), promDuration(table.Window), strconv.FormatFloat(m.MinEvents, 'f', -1, 64))
	}
	if m.Unless != "" {
		if other, ok := table.Row(m.Unless); ok {
			expr += " unless (" + table.record(other) + " > 0)"
		}
	}
	return expr
}

func (u Unit) format(v float64) string {
	number := func(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }
	switch u {
	case Seconds:
		if v < 1 {
			return number(v*1000) + " ms"
		}
		return number(v) + " s"
	case Ratio:
		return number(v*100) + " %"
	case PerSecond:
		return number(v) + "/s"
	case PerMinute:
		return number(v) + "/min"
	}
	return number(v) + " " + string(u)
}
