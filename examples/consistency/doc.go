// Package consistency holds the test of what all packages promise together: a client who writes through one process and
// reads through another one sees what it wrote, and never less than it saw before, however far the replicas are behind.
// It has no code of its own.
//
// The test binary starts itself several times, as instances of one service. Each has a database split over a primary and
// two replicas, a session store, a cache, queues and a worker. Clients take turns at them over HTTP and write down what they
// did and saw; package internal/history judges that. Meanwhile the replicas are delayed by up to five seconds and paused, by
// a schedule that SCALEAWARE_SEED repeats. Clients of the same replicas that carry nothing show that this matters.
//
// SCALEAWARE_PAIRS is the number of writes that are read again; make history PAIRS=1000000 does a million.
package consistency
