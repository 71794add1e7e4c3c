// Command mutate asks whether tests would notice: it breaks files of a package in one small way after another, such as >
// for >=, + for - or a statement left out, and runs tests on each. All ways are compiled into one test binary, of which
// an environment variable chooses one, so that hundreds take minutes.
//
// usage: go run ./internal/mutate -dir metrics -run 'TestAlerts|TestReplayGolden' -least 0.95 rate.go track.go …
package main
