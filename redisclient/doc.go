// Package redisclient holds the go-redis settings that work when Redis does not.
//
//	rdb := redisclient.New(redisclient.Options("10.0.0.1:6379", "10.0.0.2:6379")) // several addresses: a cluster
//
// It promises, with github.com/redis/go-redis/v9 from v9.23:
//
//   - A call ends when its context ends. go-redis ignores the deadline of a context unless told otherwise, and a call to a
//     server that hangs then takes five seconds and more.
//   - A client finds the promoted replica within about a second of the promotion. By default go-redis reads the layout of a
//     cluster once a minute, and a refused connection is no reason for it to look again (redis/go-redis#3979), so it calls
//     the dead server all that time.
//   - A call to a server that refuses connections dials once per attempt; by default it dials twenty times.
//   - No error, and no printed options, contain a password, also when the URL that holds it is malformed.
//
// What failure looks like: without a deadline in its context a call to one server that hangs ends after about five
// seconds (one to get a connection, two to dial, two to read); a cluster client tries up to four times. Give every call a
// deadline. A cluster client may execute a command twice when a connection breaks after the command was sent and before the
// answer came; go-redis does so for every command, idempotent or not. A client for one server never does. While a
// master is being replaced, calls to its slots fail; those to others go on, except for the moment between detection and
// promotion, when a cluster with cluster-require-full-coverage (which is the default) refuses all.
//
// [Options] and [ParseURL] return options that may be changed before they go to [New]. [New] rather than
// redis.NewUniversalClient, because redis.UniversalOptions has no field for the reload interval. [Check] names the settings
// of any client that will hurt, without I/O; [Describe] says what a client connects to, fit for a log. [EachMaster] visits
// all masters and loses no error. A [Lease] makes one process of a fleet do what is enough once.
package redisclient
