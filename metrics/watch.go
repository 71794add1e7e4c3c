package metrics

import "time"

const (
	watchTarget  = "target_down"
	watchSampler = "sampler_vanished"
	watchAll     = "nothing_exported"

	stepDown     = "Monitoring: look whether the process lives, its log, and whether Prometheus reaches its management listener."
	stepVanished = "Monitoring: the instance that sampled this is gone and no other took over. Start one, or ignore it if the package is no longer used."
	stepAbsent   = "Monitoring: look at Prometheus's targets. Without them none of the other alerts can fire."
)

// watches are the alerts about what no process can tell of itself: where there is no series, a threshold is never
// passed. Targets are ours when any of their job's has been within the hour.
func watches() []rule {
	sampled := SamplerSuccess.Name
	return []rule{
		{
			alert: "ScaleawareTargetDown", metric: watchTarget, severity: Warning, due: short, step: stepDown,
			expr:    up.Name + " == 0 and on (job) group by (job) (last_over_time(" + sampled + "[1h]))",
			summary: "{{ $labels.instance }} of {{ $labels.job }} cannot be scraped",
		},
		{
			alert: "ScaleawareSamplerVanished", metric: watchSampler, severity: Warning, due: long, step: stepVanished,
			expr:    "group by (package, task) (last_over_time(" + sampled + "[1h])) unless group by (package, task) (" + sampled + ")",
			summary: "Nobody samples any more what {{ $labels.package }} calls {{ $labels.task }}",
		},
		{
			alert: "ScaleawareNothingExported", metric: watchAll, severity: Critical, due: 5 * time.Minute, step: stepAbsent,
			expr:    "absent(" + sampled + ")",
			summary: "No process exports any of scaleaware's series",
		},
	}
}
