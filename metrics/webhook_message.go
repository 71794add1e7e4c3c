package metrics

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// webhookMessage is Alertmanager's message, version 4.
type webhookMessage struct {
	Version           string            `json:"version"`
	GroupKey          string            `json:"groupKey"`
	TruncatedAlerts   int               `json:"truncatedAlerts"`
	Status            string            `json:"status"`
	Receiver          string            `json:"receiver"`
	GroupLabels       map[string]string `json:"groupLabels"`
	CommonLabels      map[string]string `json:"commonLabels"`
	CommonAnnotations map[string]string `json:"commonAnnotations"`
	ExternalURL       string            `json:"externalURL"`
	Alerts            []webhookAlert    `json:"alerts"`
}

type webhookAlert struct {
	Status       string            `json:"status"`
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"` // zero while it fires
	GeneratorURL string            `json:"generatorURL"`
	Fingerprint  string            `json:"fingerprint"`
}

func (w *Webhook) payload(key string, alerts []Alert) *webhookMessage {
	m := &webhookMessage{
		Version: "4", GroupKey: key, Status: "resolved", Receiver: w.opts.Receiver,
		GroupLabels: w.groupLabels(alerts[0]), ExternalURL: w.opts.ExternalURL,
	}
	for i, a := range alerts {
		one := webhookAlert{Status: "firing", Labels: a.Labels, Annotations: maps.Clone(a.Annotations), Fingerprint: fingerprint(a.Labels)}
		one.Annotations["value"] = a.Unit.format(a.Value)
		if a.FiredAt != nil {
			one.StartsAt = *a.FiredAt
		}
		if w.opts.ExternalURL != "" {
			one.GeneratorURL = strings.TrimSuffix(w.opts.ExternalURL, "/") + "/api/v1/performance/capacity/dashboard"
		}
		if a.ResolvedAt != nil {
			one.Status, one.EndsAt = "resolved", *a.ResolvedAt
		} else {
			m.Status = "firing"
		}
		if i == 0 {
			m.CommonLabels, m.CommonAnnotations = maps.Clone(one.Labels), maps.Clone(one.Annotations)
		}
		common := func(of, and map[string]string) {
			maps.DeleteFunc(of, func(k, v string) bool { other, ok := and[k]; return !ok || other != v })
		}
		common(m.CommonLabels, one.Labels)
		common(m.CommonAnnotations, one.Annotations)
		if len(m.Alerts) < maxAlerts {
			m.Alerts = append(m.Alerts, one)
		} else {
			m.TruncatedAlerts++
		}
	}
	return m
}

// fingerprint identifies an alert by its labels as Prometheus and Alertmanager do: FNV-1a over the sorted names and
// values, each followed by a byte that no UTF-8 text has.
func fingerprint(labels map[string]string) string {
	h := fnv.New64a()
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		_, _ = h.Write([]byte(name + "\xff" + labels[name] + "\xff"))
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

func quoted(s string) string { return strconv.Quote(s) }
