# Every curl of the scaling runbook that concerns us, as it is written there, in its order.
curl http://localhost:3002/api/v1/performance/capacity/dashboard
curl http://localhost:3002/api/v1/performance/capacity/bottlenecks
curl -X POST http://localhost:3002/api/v1/admin/read-only-mode
curl -X POST http://localhost:3002/api/v1/performance/cache/extend-ttls
curl -X POST http://localhost:3002/api/v1/performance/jobs/low-priority/pause
curl -s http://localhost:3002/api/v1/performance/capacity/dashboard
curl -X DELETE http://localhost:3002/api/v1/admin/read-only-mode
curl http://localhost:3002/api/v1/performance/database/slow-queries
curl -X POST http://localhost:3002/api/v1/performance/database/optimize-table/Lead
curl -X POST http://localhost:3002/api/v1/performance/database/optimize-table/Event
curl -X POST http://localhost:3002/api/v1/performance/cache/invalidate -H "Content-Type: application/json" -d '{"pattern": "*"}'
curl -X POST http://localhost:3002/api/v1/performance/cache/warm
curl http://localhost:3002/api/v1/performance/cache/hit-rate
curl -X POST http://localhost:3002/api/v1/performance/jobs/lead-processing/retry-failed
curl -X POST http://localhost:3002/api/v1/performance/jobs/low-priority/drain
curl http://localhost:3002/health
