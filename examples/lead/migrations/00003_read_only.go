package migrations

import (
	"github.com/pressly/goose/v3"

	"github.com/scaleaware/scaleaware/readonly/pgstore"
)

// readOnly is where the state of read-only mode is kept, beside Redis.
func readOnly() *goose.Migration {
	return inGo("00003_read_only.go", inTx(pgstore.Schema), inTx(`DROP TABLE scaleaware_readonly, scaleaware_readonly_instance`))
}
