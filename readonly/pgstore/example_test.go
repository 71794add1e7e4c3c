package pgstore_test

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scaleaware/scaleaware/readonly/pgstore"
)

// The row of the state, for readonly.New alone or as the second store of pairstore.New. A *dbsplit.DB serves as well.
func Example() {
	pool, err := pgxpool.New(context.Background(), "postgres://app@127.0.0.1:1/shop?connect_timeout=1")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	store, err := pgstore.New(pool, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(store.Migrate(context.Background()) != nil) // nobody listens there
	// Output: true
}
