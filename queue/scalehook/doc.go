// Package scalehook has hooks for queue.Jobs.Autoscale: HTTP tells a server of one's own, and Kubernetes sets the replicas
// of a Deployment. To resize a worker in the same process, use queue.Worker.ScaleTo; any function is a hook, too.
//
// # Promises
//
//   - The number is absolute, so a call that is repeated does no harm.
//   - HTTP sends the decision's generation, in the body and as the Idempotency-Key. It only grows: a receiver that
//     refuses lower ones than it has seen cannot be misled by a process that stood still.
//   - Kubernetes changes a workload only as it was when it was read, and reads it again when it has changed since. It keeps the
//     generation in an annotation beside the number, in one write, and refuses an older one with ErrOldGeneration.
//   - Credentials go to the configured host alone: no redirect leads elsewhere.
//
// # Failure behaviour
//
// A call ends when its timeout or the leader's trust in itself ends. Errors say what to do, are short, and hold no
// token, password or query. The autoscaler counts and logs them, and calls again at its next look.
package scalehook
