package pgwitness_test

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scaleaware/scaleaware/readonly"
	"github.com/scaleaware/scaleaware/readonly/pgwitness"
)

// The witness makes "held" a proof. Lock is the advisory lock that dbsplit's Options.FenceLock names, too.
func Example() {
	pool, err := pgxpool.New(context.Background(), "postgres://app@127.0.0.1:1/shop")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	witness, err := pgwitness.New(pool, &pgwitness.Options{Lock: 7})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = readonly.New(readonly.NewMemory(), &readonly.Options{Witness: witness})
	fmt.Println(err)
	// Output: <nil>
}
