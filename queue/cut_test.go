package queue

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"
)

// failedJobs stores n of them, one a second.
func failedJobs(t *testing.T, rdb redis.UniversalClient, q string, n int) {
	t.Helper()
	msg := (&message{kind: note{}.Kind(), payload: []byte("{}"), id: "x", queue: q}).encode()
	pipe := rdb.Pipeline()
	for i := range n {
		id := fmt.Sprintf("dead-%d", i)
		pipe.HSet(t.Context(), taskPrefix(q)+id, "msg", msg, "state", "archived")
		pipe.ZAdd(t.Context(), asynqKey(q, "archived"), redis.Z{Score: float64(time.Now().Unix() - int64(n-i)), Member: id})
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// asynq's own tools cut the failed jobs to 9,999 when they archive one. That is counted and told, and nothing else is.
func TestCutFailedJobsAreNoticed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := fresh("cut")
		log := new(lines)
		j := newJobs(t, rdb, &Options{Logger: slog.New(slog.NewTextHandler(log, nil))}, Queue{Name: q})
		failedJobs(t, rdb, q, 10_500)
		enqueue(t, j, q, 1, ID("victim"))
		look := func(want float64, what string) {
			t.Helper()
			if err := j.sample(t.Context(), q); err != nil {
				t.Fatal(err)
			}
			if got := testutil.ToFloat64(j.meters.cut.WithLabelValues(q)); got != want {
				t.Errorf("%s: %v failed jobs are counted as cut, want %v", what, got, want)
			}
		}
		look(0, "at first")
		if n, err := j.RetryFailed(t.Context(), q, &RetryFailed{Most: 20}); n != 20 || err != nil {
			t.Fatal(n, err)
		}
		look(0, "after RetryFailed")
		if err := j.asynq.DeleteTask(q, "dead-20"); err != nil {
			t.Fatal(err)
		}
		if err := j.asynq.RunTask(q, "dead-21"); err != nil {
			t.Fatal(err)
		}
		look(0, "after asynq's delete and run")
		if strings.Contains(log.String(), "cut") {
			t.Errorf("the log says\n%s", log)
		}
		if err := j.asynq.ArchiveTask(q, "victim"); err != nil { // as asynqmon and the CLI do
			t.Fatal(err)
		}
		left := status(t, j, q).Failed
		if left != 9999 {
			t.Fatalf("asynq has left %d, the test is out of date", left)
		}
		look(10_478-9999, "after asynq's archive")
		if !strings.Contains(log.String(), "has cut the oldest failed jobs off") || !strings.Contains(log.String(), "jobs=479") {
			t.Errorf("the log says\n%s", log)
		}
		look(10_478-9999, "once more")
		if n, err := j.Purge(t.Context(), q, Failed); n != 9999 || err != nil {
			t.Fatal(n, err)
		}
		look(10_478-9999, "after Purge")
	})
}

// A cut is told once also when the answer that tells of it is lost.
func TestCutIsToldWhenAnAnswerIsLost(t *testing.T) {
	t.Parallel()
	q := fresh("cutlost")
	deaf := &deafOnce{UniversalClient: client(t, single.Get(t).Addrs())}
	j := newJobs(t, deaf, nil, Queue{Name: q})
	failedJobs(t, deaf, q, 10_100)
	enqueue(t, j, q, 1, ID("victim"))
	if err := j.noticeCut(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	if err := j.asynq.ArchiveTask(q, "victim"); err != nil {
		t.Fatal(err)
	}
	deaf.sha = cutScript.Hash()
	if err := j.noticeCut(t.Context(), q); err == nil {
		t.Fatal("the answer was not lost")
	}
	for range 2 {
		if err := j.noticeCut(t.Context(), q); err != nil {
			t.Fatal(err)
		}
		if n := testutil.ToFloat64(j.meters.cut.WithLabelValues(q)); n != 10_100-9999 {
			t.Errorf("%v are counted as cut, want %v", n, 10_100-9999)
		}
	}
}

// The marks are those of versions before, which run beside this one in a rolling deployment: how many, and the oldest.
func TestCutMarksAreOfAllVersions(t *testing.T) {
	t.Parallel()
	q, rdb := fresh("cutmarks"), client(t, single.Get(t).Addrs())
	j := newJobs(t, rdb, nil, Queue{Name: q})
	failedJobs(t, rdb, q, 12)
	key := ownKey(q, "oldest-failed")
	look := func(want int) {
		t.Helper()
		if err := j.noticeCut(t.Context(), q); err != nil {
			t.Error(err)
		}
		if got := int(testutil.ToFloat64(j.meters.cut.WithLabelValues(q))); got != want {
			t.Errorf("%d are counted as cut, want %d", got, want)
		}
	}
	look(0)
	want := rdb.ZRange(t.Context(), asynqKey(q, "archived"), 0, marked-1).Val()
	if marks := rdb.LRange(t.Context(), key, 0, -1).Val(); !slices.Equal(marks, append([]string{"12"}, want...)) {
		t.Errorf("the marks are %q", marks)
	}
	rdb.ZRemRangeByRank(t.Context(), asynqKey(q, "archived"), 0, 1)
	look(2)
	if n := rdb.LIndex(t.Context(), key, 0).Val(); n != "10" {
		t.Errorf("then the marks say %q", n)
	}
	rdb.LSet(t.Context(), key, 0, "10 a-look 0") // of one version
	rdb.ZRemRangeByRank(t.Context(), asynqKey(q, "archived"), 0, 0)
	look(3)
	oldest := rdb.ZRange(t.Context(), asynqKey(q, "archived"), 0, 0).Val()[0]
	rdb.ZRem(t.Context(), asynqKey(q, "archived"), oldest)
	rdb.Del(t.Context(), taskPrefix(q)+oldest)
	rdb.Set(t.Context(), taskPrefix(q)+oldest, "no job", 0)
	look(3)
}

// deafOnce loses the next answer of a script.
type deafOnce struct {
	redis.UniversalClient
	sha string
}

func (d *deafOnce) EvalSha(ctx context.Context, sha string, keys []string, args ...any) *redis.Cmd {
	cmd := d.UniversalClient.EvalSha(ctx, sha, keys, args...)
	if sha == d.sha && cmd.Err() == nil {
		d.sha = ""
		cmd.SetErr(io.EOF)
	}
	return cmd
}
