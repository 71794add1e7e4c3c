package replicasafe

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/scaleaware/scaleaware/internal/pgcluster"
)

// A replica that waits for no read when it replays a lock: in a second it shows what in production takes 30.
var postgres = pgcluster.NewShared(&pgcluster.Options{Replicas: 1, Settings: map[string]string{"max_standby_streaming_delay": "200ms"}})

func TestMain(m *testing.M) { goleak.VerifyTestMain(postgres.Around(m)) }
