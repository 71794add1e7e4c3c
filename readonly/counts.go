package readonly

import "sync"

// counts are what this instance does besides requests.
type counts struct {
	mu                sync.Mutex
	jobs, connections []func() int
}

// CountJobs makes the fence wait for jobs: running returns how many of this process run now that may write. It counts a
// job before it asks AllowWrite. queue.Worker.Writing is one. Call it before Run; what several return is added.
func (s *Switch) CountJobs(running func() int) {
	s.counts.mu.Lock()
	defer s.counts.mu.Unlock()
	s.counts.jobs = append(s.counts.jobs, running)
}

// CountConnections makes the fence wait for a database: busy returns how many connections of this process may be writing
// now. It counts a connection before it asks AllowWrite. dbsplit.DB.Writing is one. Call it before Run; what several
// return is added.
func (s *Switch) CountConnections(busy func() int) {
	s.counts.mu.Lock()
	defer s.counts.mu.Unlock()
	s.counts.connections = append(s.counts.connections, busy)
}

func (c *counts) read() (jobs, connections int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.jobs {
		jobs += int64(f())
	}
	for _, f := range c.connections {
		connections += int64(f())
	}
	return jobs, connections
}
