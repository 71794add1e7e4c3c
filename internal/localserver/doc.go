// Package localserver runs real servers (PostgreSQL, Redis, …) from local
// binaries, for tests and for the demo.
//
// It promises:
//
//   - Nothing survives. Servers and their directory vanish when the [Home] is
//     closed, and just as well when this process panics, is interrupted or is
//     killed by SIGKILL: a watchdog process outlives us, sees our end of a pipe
//     close and cleans up.
//   - A port from [Home.Port] stays this home's until it is closed, even
//     while its server is down (on Linux; elsewhere it is merely free at first).
//   - No root needed, and none used for servers that refuse it: see
//     [Options.DropRoot].
//   - A server's output is kept in a file, not printed: [Process.Log].
//
// When a binary is missing, [Find] returns an error that matches
// [ErrNotInstalled] and says what to run. Package testing is not imported.
package localserver
