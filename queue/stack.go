package queue

import "context"

// spacious returns the context that a job's begins with. asynq asks for it first of all, in the goroutine that ends the job.
func spacious() context.Context {
	makeRoom(0)
	return context.Background()
}

// makeRoom makes the stack of a goroutine 8 KiB large while hardly anything is on it. asynq starts two goroutines for each job, whose
// stacks begin with 2 KiB: they grow on the way down to a decoder or to Redis, and there many frames are walked and moved, which
// takes a fifth of a busy worker's time.
//
//go:noinline
func makeRoom(i int) byte {
	var frame [4 << 10]byte
	frame[i&1023] = 1
	return frame[(i+1)&1023]
}
