package lead

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/redis/go-redis/v9"
)

// Log returns the process's log, for warnings and errors. It becomes go-redis's as well, which has one for the whole
// process: call it in main, once.
func Log(c Config) *slog.Logger {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})).With("instance", c.Instance)
	redis.SetLogger(redisLog{log})
	return log
}

// redisLog keeps go-redis's remarks on single connections out of the terminal; what they mean is reported by the packages.
type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, args ...any) {
	l.log.DebugContext(ctx, fmt.Sprintf(format, args...))
}
