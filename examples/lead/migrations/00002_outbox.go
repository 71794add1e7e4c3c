package migrations

import (
	"github.com/pressly/goose/v3"

	"github.com/scaleaware/scaleaware/queue"
)

// outbox is the table of jobs that were enqueued in transactions. Package queue has the statement, so that a later version
// of it cannot differ from what was copied here.
func outbox() *goose.Migration {
	return inGo("00002_outbox.go", inTx(queue.OutboxSchema), inTx(`DROP TABLE scaleaware_outbox`))
}
