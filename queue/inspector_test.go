package queue

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// What asynqmon and the asynq CLI read, they read through an Inspector: queue ls and inspect, task ls of each state, server ls, stats.
func TestAsynqsToolsReadOurQueues(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("tools")
		j := newJobs(t, rdb, nil, Queue{Name: q})
		w := newWorker(t, j, &WorkerOptions{Concurrency: 4, DrainTimeout: time.Millisecond})
		running := make(chan struct{})
		Handle(w, func(ctx context.Context, job note) error {
			switch job.Text {
			case "fail":
				return errors.New("no")
			case "panic":
				panic("boom")
			case "run":
				close(running)
				<-ctx.Done()
				return ctx.Err()
			}
			return AttemptFrom(ctx).SetResult(ctx, "done")
		})
		start(t, w)
		ids := map[string]string{}
		for text, opts := range map[string][]Option{
			"done": {Retention(time.Hour)}, "fail": {MaxRetry(5)}, "panic": {MaxRetry(0)}, "run": nil, "later": {In(time.Hour)},
		} {
			info, err := j.Enqueue(t.Context(), note{Text: text}, opts...)
			if err != nil {
				t.Fatal(err)
			}
			ids[text] = info.ID
		}
		<-running
		eventually(t, 20*time.Second, "each job is where it belongs", func() bool {
			s := status(t, j, q)
			return s.Completed == 1 && s.Retrying == 1 && s.Failed == 1 && s.Active == 1 && s.Delayed == 1 && s.Waiting == 0
		})
		if _, err := j.Pause(t.Context(), q, nil); err != nil {
			t.Fatal(err)
		}
		sleep(t.Context(), maxWait) // a fetch that was under way has ended
		waiting, err := j.Enqueue(t.Context(), note{Text: "wait"})
		if err != nil {
			t.Fatal(err)
		}
		ids["wait"] = waiting.ID

		tools := asynq.NewInspectorFromRedisClient(rdb)
		queues, err := tools.Queues()
		if err != nil || !slices.Contains(queues, q) {
			t.Errorf("queue ls: %v without %s, %v", queues, q, err)
		}
		info, err := tools.GetQueueInfo(q)
		if err != nil || info.Pending != 1 || info.Active != 1 || info.Scheduled != 1 || info.Retry != 1 || info.Archived != 1 || info.Completed != 1 || !info.Paused {
			t.Errorf("queue inspect: %+v, %v", info, err)
		}
		for text, list := range map[string]func(string, ...asynq.ListOption) ([]*asynq.TaskInfo, error){
			"wait": tools.ListPendingTasks, "run": tools.ListActiveTasks, "later": tools.ListScheduledTasks,
			"fail": tools.ListRetryTasks, "panic": tools.ListArchivedTasks, "done": tools.ListCompletedTasks,
		} {
			tasks, err := list(q)
			if err != nil || len(tasks) != 1 || tasks[0].ID != ids[text] || tasks[0].Type != (note{}).Kind() {
				t.Errorf("task ls of the job %q: %+v, %v", text, tasks, err)
			}
		}
		if done, err := tools.GetTaskInfo(q, ids["done"]); err != nil || string(done.Result) != `"done"` {
			t.Errorf("task inspect: %+v, %v", done, err)
		}
		history, err := tools.History(q, 1)
		if err != nil || len(history) != 1 || history[0].Processed != 3 || history[0].Failed != 2 {
			t.Errorf("stats: %+v, %v", history, err)
		}
		eventually(t, 20*time.Second, "server ls shows who works on it, which asynq tells every 5s", func() bool {
			servers, err := tools.Servers()
			return err == nil && slices.ContainsFunc(servers, func(s *asynq.ServerInfo) bool { return s.Queues[q] > 0 && len(s.ActiveWorkers) == 1 })
		})
	})
}
