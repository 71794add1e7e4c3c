// Command gorm uses GORM over the router's database/sql connectors: one handle writes on the primary, one reads on
// replicas that have seen the caller's writes, and in read-only mode nothing is written.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/scaleaware/scaleaware"
	"github.com/scaleaware/scaleaware/dbsplit"
	"github.com/scaleaware/scaleaware/readonly"
)

// Note is a row of notes.
type Note struct {
	ID        int64
	Body      string
	CreatedAt time.Time
}

func main() {
	nodes := dbsplit.Nodes{Primary: os.Getenv("DATABASE_URL_PRIMARY"), Replicas: strings.Split(os.Getenv("DATABASE_URL_REPLICA"), ",")}
	if err := run(context.Background(), os.Stdout, nodes); err != nil {
		fmt.Fprintln(os.Stderr, "gorm:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, nodes dbsplit.Nodes) error {
	mode, err := readonly.New(nil, nil) // of this process only; with a store, one switch for all instances
	if err != nil {
		return err
	}
	db, err := dbsplit.Open(ctx, nodes, &dbsplit.Options{Gate: mode})
	if err != nil {
		return err
	}
	defer db.Close()
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 2)
	go func() { done <- db.Run(running) }() // watches the replicas; without it reads go to the primary
	go func() { done <- mode.Run(running) }()
	defer func() { stop(); <-done; <-done }()
	writes, reads, err := handles(db)
	if err != nil {
		return err
	}

	// One unit of work, as a request is. In a service, a middleware begins it.
	ctx, _ = scaleaware.WithWatermark(ctx)
	note := Note{Body: "written by gorm"}
	err = errors.Join(writes.WithContext(ctx).AutoMigrate(&Note{}), writes.WithContext(ctx).Create(&note).Error)
	if err != nil {
		return err
	}
	var got Note
	if err := reads.WithContext(ctx).First(&got, note.ID).Error; err != nil {
		return err
	}
	fmt.Fprintln(out, "read back:", got.Body)

	if _, err := mode.Enable(ctx, readonly.Change{Reason: "to show it"}); err != nil {
		return err
	}
	err = writes.WithContext(ctx).Create(&Note{Body: "too late"}).Error
	fmt.Fprintln(out, "in read-only mode, refused:", errors.Is(err, readonly.ErrReadOnly))
	return reads.WithContext(ctx).First(&got, note.ID).Error
}

// handles returns a handle for everything, whose statements go to the primary, and one that only reads. Both are cheap:
// the pools are the router's.
func handles(db *dbsplit.DB) (writes, reads *gorm.DB, err error) {
	open := func(connector *dbsplit.Connector) *gorm.DB {
		handle, openErr := gorm.Open(postgres.New(postgres.Config{Conn: sql.OpenDB(connector)}), &gorm.Config{Logger: logger.Discard})
		err = errors.Join(err, openErr)
		return handle
	}
	writes, reads = open(db.Connector()), open(db.Read().Connector())
	return writes, reads, err
}
