package replicasafe

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/scaleaware/scaleaware/examples/lead/migrations"
)

// Check runs every migration of a set in a database of its own, which it makes on the server of url and drops again, and
// returns what is wrong with those that judged wants, accepted or not, in their order. Notes are what kept it from seeing
// more. It needs the right to create databases, on a server that is not production's.
func Check(ctx context.Context, url string, set migrations.Set, judged func(version int64) bool) (findings []Finding, notes []string, err error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, nil, errors.New("replicasafe: the URL of the server cannot be parsed, want postgres://host/database")
	}
	server, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, nil, fmt.Errorf("replicasafe: %w", err)
	}
	defer func() { err = errors.Join(err, server.Close(context.WithoutCancel(ctx))) }()
	name := "replicasafe_" + strings.ToLower(rand.Text())
	if _, err := server.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return nil, nil, fmt.Errorf("replicasafe: a database to try migrations in: %w", err)
	}
	defer func() {
		_, dropErr := server.Exec(context.WithoutCancel(ctx), "DROP DATABASE "+name+" WITH (FORCE)")
		err = errors.Join(err, dropErr)
	}()
	config.Database = name
	s := &scratch{text: set.SQL}
	if set.Text != nil {
		s.text = set.Text
	}
	if s.conn, err = pgx.ConnectConfig(ctx, config); err != nil {
		return nil, nil, fmt.Errorf("replicasafe: %w", err)
	}
	defer func() { err = errors.Join(err, s.conn.Close(context.WithoutCancel(ctx))) }()
	s.watch = &watch{Connector: stdlib.GetConnector(*config), observer: s.conn}
	db := sql.OpenDB(s.watch)
	defer func() { err = errors.Join(err, db.Close()) }()
	if s.goose, err = set.Provider(db); err != nil {
		return nil, nil, err
	}
	for _, source := range s.goose.ListSources() {
		found, err := s.run(ctx, source, judged(source.Version))
		findings = append(findings, found...)
		if err != nil {
			return findings, s.notes, fmt.Errorf("replicasafe: migration %s: %w", migrations.Name(source), err)
		}
		if s.stuck {
			break
		}
	}
	return findings, s.notes, nil
}

// scratch is the database in which migrations are tried.
type scratch struct {
	text  fs.FS
	conn  *pgx.Conn
	watch *watch
	goose *goose.Provider
	notes []string
	stuck bool // a migration cannot be applied, so those after it cannot be tried
}

func (s *scratch) run(ctx context.Context, source *goose.Source, judged bool) ([]Finding, error) {
	if !judged {
		if _, err := s.goose.ApplyVersion(ctx, source.Version, true); err != nil {
			return nil, err
		}
		return nil, s.fill(ctx)
	}
	o, err := s.observe(ctx, source)
	if err != nil {
		return nil, err
	}
	if s.stuck {
		return Judge(o), nil
	}
	text, err := fs.ReadFile(s.text, source.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a migration in Go may come without its text
		return nil, err
	}
	return accept(o.Migration, string(text), Judge(o)), s.fill(ctx)
}

// observe goes forwards, back, and forwards again.
func (s *scratch) observe(ctx context.Context, source *goose.Source) (o Observation, err error) {
	o.Migration = migrations.Name(source)
	if _, err := s.goose.GetDBVersion(ctx); err != nil { // makes goose's table
		return o, err
	}
	if o.Before, err = read(ctx, s.conn); err != nil {
		return o, err
	}
	s.watch.take()
	if _, o.Failed = s.goose.ApplyVersion(ctx, source.Version, true); o.Failed != nil {
		s.stuck = true
		return o, ctx.Err()
	}
	o.Statements = s.watch.take()
	if o.After, err = read(ctx, s.conn); err != nil {
		return o, err
	}
	down, err := s.goose.ApplyVersion(ctx, source.Version, false)
	if err != nil {
		o.DownFailed = err
		return o, ctx.Err()
	}
	o.NoDown = down.Empty
	if o.Reverted, err = read(ctx, s.conn); err != nil || o.NoDown {
		return o, errors.Join(err, s.recorded(ctx, source.Version))
	}
	if _, err = s.goose.ApplyVersion(ctx, source.Version, true); err != nil { // Down has left too little or too much
		s.stuck = true
	}
	return o, ctx.Err()
}

// recorded puts a migration that has no way back, and so is still there, into goose's record again.
func (s *scratch) recorded(ctx context.Context, version int64) error {
	_, err := s.conn.Exec(ctx, `INSERT INTO goose_db_version (version_id, is_applied, tstamp) VALUES ($1, true, $2)`, version, time.Now())
	return err
}
