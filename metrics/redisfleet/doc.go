// Package redisfleet shares metrics snapshots between instances through Redis.
//
// An instance's snapshot vanishes by itself when it is no longer renewed. All keys have one hash tag, so that on a
// Redis Cluster they are in one slot: a few kilobytes for each instance.
//
// When Redis fails, Put and All return the client's error, and metrics.Capacity goes on with its own instance. Give it a
// client from redisclient, whose calls end with their context also when a server hangs.
package redisfleet
