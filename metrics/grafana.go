package metrics

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Dashboard returns the Grafana dashboard of [KeyMetrics].
func Dashboard() []byte { return KeyMetrics().Dashboard() }

// Dashboard returns a Grafana dashboard in JSON, as provisioning and the HTTP API take it: a row for each area with the
// key metrics, their thresholds drawn from the table, and what explains them, by instance, pool and queue. The data
// source is a variable, the uid stays the same. It is for Grafana 9 and later.
func (t Table) Dashboard() []byte {
	t = t.withDefaults()
	d := grafana{
		UID: "scaleaware", Title: "scaleaware", Tags: []string{"scaleaware"}, Editable: true, SchemaVersion: 38, Refresh: "30s",
		Description: "Made by scaleaware's metrics.Dashboard from its table of key metrics. Change the table, not this dashboard.",
		Time:        grafanaTime{"now-1h", "now"}, GraphTooltip: 1,
	}
	d.Annotations.List = []any{}
	d.Templating.List = append(d.Templating.List, map[string]any{
		"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1,
	})
	for _, v := range variables() {
		d.Templating.List = append(d.Templating.List, map[string]any{
			"name": v.label, "label": v.label, "type": "query", "datasource": grafanaSource,
			"query":   map[string]any{"query": fmt.Sprintf("label_values(%s, %s)", v.series.Name, v.label), "refId": v.label},
			"refresh": 2, "sort": 1, "multi": true, "includeAll": true, "allValue": ".*",
			"current": map[string]any{"text": []string{"All"}, "value": []string{"$__all"}},
		})
	}
	d.layout(t.panels())
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(d); err != nil {
		panic("metrics: the dashboard cannot be written: " + err.Error()) // no input can cause that
	}
	return b.Bytes()
}

// grafana is the part of Grafana's model that is used.
type grafana struct {
	UID           string      `json:"uid"`
	Title         string      `json:"title"`
	Description   string      `json:"description"`
	Tags          []string    `json:"tags"`
	Editable      bool        `json:"editable"`
	SchemaVersion int         `json:"schemaVersion"`
	Refresh       string      `json:"refresh"`
	Time          grafanaTime `json:"time"`
	GraphTooltip  int         `json:"graphTooltip"` // 1: the panels share the crosshair
	Annotations   grafanaList `json:"annotations"`
	Templating    grafanaList `json:"templating"`
	Panels        []any       `json:"panels"`
}

type grafanaTime struct {
	From string `json:"from"`
	To   string `json:"to"`
}

type grafanaList struct {
	List []any `json:"list"`
}

type grafanaPos struct {
	H int `json:"h"`
	W int `json:"w"`
	X int `json:"x"`
	Y int `json:"y"`
}

var grafanaSource = map[string]string{"type": "prometheus", "uid": "${datasource}"}

const (
	gridWidth   = 24
	panelWidth  = 8
	panelHeight = 8
)

// layout puts the panels three abreast under the title of their area.
func (d *grafana) layout(panels []panel) {
	area, x, y, id := "", 0, 0, 0
	for _, p := range panels {
		if p.area != area {
			if x > 0 {
				x, y = 0, y+panelHeight
			}
			area, id = p.area, id+1
			d.Panels = append(d.Panels, map[string]any{
				"id": id, "type": "row", "title": area, "collapsed": false, "panels": []any{}, "gridPos": grafanaPos{1, gridWidth, 0, y},
			})
			y++
		}
		id++
		at := grafanaPos{panelHeight, panelWidth, x, y}
		if p.table {
			at.W = gridWidth
		}
		if x += at.W; x >= gridWidth {
			x, y = 0, y+panelHeight
		}
		d.Panels = append(d.Panels, p.grafana(id, at))
	}
}

func (p panel) grafana(id int, at grafanaPos) map[string]any {
	targets := make([]any, len(p.queries))
	for i, q := range p.queries {
		target := map[string]any{
			"refId": string(rune('A' + i)), "datasource": grafanaSource, "expr": q.expr, "legendFormat": q.legend, "editorMode": "code", "range": true,
		}
		if p.table {
			target["range"], target["instant"], target["format"] = false, true, "table"
		}
		targets[i] = target
	}
	out := map[string]any{
		"id": id, "type": "timeseries", "title": p.title, "description": p.about, "datasource": grafanaSource, "gridPos": at, "targets": targets,
	}
	if p.table {
		out["type"] = "table"
		out["fieldConfig"] = map[string]any{"defaults": map[string]any{}, "overrides": []any{}}
		out["options"] = map[string]any{"showHeader": true}
		hidden := map[string]bool{"Time": true, "Value": true, "__name__": true}
		out["transformations"] = []any{map[string]any{"id": "organize", "options": map[string]any{"excludeByName": hidden}}}
		return out
	}
	style := "off"
	if p.row != nil && p.row.HasThresholds() {
		style = "dashed"
	}
	out["fieldConfig"] = map[string]any{
		"defaults": map[string]any{
			"unit": p.unit.grafana(), "min": 0, "color": map[string]any{"mode": "palette-classic"},
			"thresholds": map[string]any{"mode": "absolute", "steps": p.steps()},
			"custom": map[string]any{
				"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": false,
				"thresholdsStyle": map[string]any{"mode": style},
			},
		},
		"overrides": []any{},
	}
	if p.row != nil && p.row.Statistic == GrowthPerDay { // a database may shrink
		delete(out["fieldConfig"].(map[string]any)["defaults"].(map[string]any), "min")
	}
	out["options"] = map[string]any{
		"legend":  map[string]any{"showLegend": true, "displayMode": "list", "placement": "bottom", "calcs": []string{"lastNotNull"}},
		"tooltip": map[string]any{"mode": "multi", "sort": "desc"},
	}
	return out
}

// steps are the colours from below; Grafana's first step has no value.
func (p panel) steps() []any {
	step := func(color string, from any) any { return map[string]any{"color": color, "value": from} }
	switch {
	case p.row == nil || !p.row.HasThresholds():
		return []any{step("green", nil)}
	case p.row.Op == Below:
		return []any{step("red", nil), step("orange", p.row.Critical), step("green", p.row.Warning)}
	}
	return []any{step("green", nil), step("orange", p.row.Warning), step("red", p.row.Critical)}
}

func (u Unit) grafana() string {
	switch u {
	case Seconds:
		return "s"
	case Ratio:
		return "percentunit"
	case PerSecond:
		return "ops"
	case PerMinute:
		return "opm"
	case Bytes, BytesADay:
		return "bytes"
	case Flag:
		return "bool_yes_no"
	}
	return "short"
}
