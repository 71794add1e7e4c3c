// Package queue runs jobs on priority queues in Redis, with limits that hold over the whole fleet. It is built on
// asynq: its tools go on to work on these queues.
//
// # Promises
//
//   - A queue's Rate holds in any window, wherever it begins, over all processes, retries included; its Concurrency over
//     all workers. A job that has to wait for them stays where it is: no attempt and no time is used. Limits are the
//     fleet's, in Redis: SetLimits changes them for all at once.
//   - A queue with a backlog does not hold up another: each has a fetcher of its own and keeps half of its share, by
//     weight, of a worker's slots. A worker with fewer slots than queues keeps none for anybody: there a queue whose jobs never
//     end can hold up the others, so give it a slot for each, or mark queues Isolated.
//   - A confirmed job runs at least once. It may run twice, when its worker dies or is cut off, or when the answer to its
//     Enqueue is lost and it is done before that asks again: handlers must bear that. The job of a dead worker is back at the
//     head of its queue within about 20 seconds, with no attempt counted, and that worker, should it live after all, cannot end
//     it any more. One whose workers have died under it for the fourth time has failed, for it may be what kills them; jobs
//     that had not started beside it do not fail with it.
//   - A delayed job, or one that is tried again, never starts before its time by Redis's clock. A periodic one is enqueued once
//     for the fleet.
//   - Failed jobs are kept until somebody takes them away. So is what asynq cannot read: it has failed at once.
//   - EnqueueTx's job exists if and only if the transaction commits, and its handler's reads see what that wrote.
//   - Shutdown puts back what is not done, at the head of the queue and with no attempt counted. So does a worker that
//     does not know a kind of job, and a handler that returns Later, for a later try.
//   - One process of the fleet scales a queue's workers. It calls its hook under a generation that only grows, and not at
//     all when it stood still and another one has taken over. What cannot be measured holds.
//
// # Failure behaviour
//
// Enqueue repeats a call whose answer was lost under the same ID, and reports ErrUnconfirmed when it stays in doubt. What is
// stored is found to be there, and so is what is done, during its Retention: a minute of that keeps a job from being stored twice.
// Redis replication is asynchronous: a master that dies can take jobs with it that it had confirmed in its last
// moments, and a failover can forget limiter state, which allows at most Rate.Max extra starts once. A Redis that may
// evict keys is refused with ErrEvicting. While writes are off, Options.Gate's refusal is what Enqueue returns, and
// stored jobs wait in place. While Redis is away, workers wait for it; a job that ends meanwhile is recorded when it
// is back, if that happens within its 30 second lease. Workers of bare asynq on the same queue are not limited, and delete
// the oldest failed jobs beyond 9,999 and those older than 90 days whenever a job of theirs fails for good. asynq's tools cut the
// list of failed jobs in the same way whenever they archive something: "archive" and "archive all" in asynqmon, "task archive"
// and "task archive-all" of the CLI, Inspector.ArchiveTask and its kin. What those cut of the jobs that had failed by the last
// sample is counted in queue_failed_cut_total and logged; of those that they archive and cut at once nobody hears. Looking,
// running and deleting with them takes no other job away. Use Purge, or delete, in their place.
//
// # Use
//
// New declares the queues. Jobs enqueues with Enqueue, EnqueueMany and EnqueueTx; its Run samples metrics, relays the outbox,
// applies scale rules and enqueues periodic jobs. NewWorker and Handle make a Worker, whose Run works until its context
// ends and then drains; HandleTask takes handlers of asynq's, AttemptFrom is what a handler knows of its job. Explain says why a
// job does not run. Operations are the verbs over HTTP: status, explain, pause, close, resume, drain, retry-failed, limits,
// throttle, scaling, which explains the autoscaler. A 503 of theirs says how many jobs it was done to until Redis failed, and
// whether more may be: look at the queue before you repeat that. docs/autoscaling.md tells of the autoscaler's rules; package
// scalehook has hooks for HTTP and Kubernetes.
package queue
