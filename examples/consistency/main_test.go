package consistency

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/internal/pgcluster"
	"github.com/scaleaware/scaleaware/internal/rediscluster"
)

var (
	postgres = pgcluster.NewShared(&pgcluster.Options{Replicas: 2})
	redis    = rediscluster.NewShared(nil)
)

func TestMain(m *testing.M) {
	if os.Getenv(instanceEnv) != "" {
		if err := runInstance(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(postgres.Around(redis.Around(m)))
}
