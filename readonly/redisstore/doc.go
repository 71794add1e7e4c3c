// Package redisstore shares the read-only state through Redis: one node, Sentinel or a cluster.
//
// All keys share one hash tag, so they live on one node of a cluster. The state is compared and set in one script: a
// lower epoch never replaces a higher one. Redis replicates asynchronously, so a failover may roll the state back; the
// instances write it back, each as soon as it reads an epoch lower than its own.
package redisstore
