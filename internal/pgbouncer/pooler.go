package pgbouncer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaleaware/scaleaware/internal/localserver"
)

// A Pooler is a running PgBouncer. Methods may be called from several goroutines, with the exception of two that
// change the same thing.
type Pooler struct {
	opts   Options
	home   *localserver.Home
	binary string
	env    []string
	dir    string
	port   int
	// keepsStatements is whether this version can keep prepared statements.
	keepsStatements bool

	mu       sync.Mutex
	upstream string
	process  *localserver.Process // nil: never started
}

// Start starts a pooler. The context bounds the start only. The caller closes it.
func Start(ctx context.Context, opts *Options) (*Pooler, error) {
	checked, err := opts.checked()
	if err != nil {
		return nil, err
	}
	p := &Pooler{opts: checked, upstream: checked.Upstream}
	if p.binary, p.env, err = localserver.Find("pgbouncer"); err != nil {
		return nil, err
	}
	if p.keepsStatements, err = newEnough(ctx, p.binary, p.env); err != nil {
		return nil, err
	}
	// PgBouncer refuses to run as root.
	if p.home, err = localserver.Open(&localserver.Options{Dir: checked.Dir, DropRoot: true}); err != nil {
		return nil, err
	}
	if p.port, err = p.home.Port(); err == nil {
		if p.dir, err = p.home.Mkdir("pgbouncer"); err == nil {
			err = p.Start(ctx)
		}
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

var version = regexp.MustCompile(`PgBouncer (\d+)\.(\d+)`)

// newEnough tells whether the program is PgBouncer 1.21 or newer.
func newEnough(ctx context.Context, binary string, env []string) (bool, error) {
	cmd := exec.CommandContext(ctx, binary, "--version")
	cmd.Env = append(os.Environ(), env...)
	text, err := cmd.Output()
	if err != nil {
		return false, fmt.Errorf("pgbouncer: %s does not run: %w", binary, err)
	}
	match := version.FindSubmatch(text)
	if match == nil {
		return false, fmt.Errorf("pgbouncer: %s has no version in %q", binary, text)
	}
	major, _ := strconv.Atoi(string(match[1])) // digits
	minor, _ := strconv.Atoi(string(match[2]))
	return major > 1 || major == 1 && minor >= 21, nil
}

// Close ends the pooler and removes its files. It may be called more than once.
func (p *Pooler) Close() error { return p.home.Close() }

// Addr is host:port. It outlives restarts.
func (p *Pooler) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)) }

// URL is the connection string of a database through the pooler.
func (p *Pooler) URL(database string) string {
	return (&url.URL{
		Scheme: "postgres", User: url.User(user), Host: p.Addr(), Path: "/" + database, RawQuery: "sslmode=disable",
	}).String()
}

// Logs is the end of what the pooler has logged, over restarts, for the report of a failure.
func (p *Pooler) Logs() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process == nil {
		return ""
	}
	return fmt.Sprintf("--- log of pgbouncer, %s\n%s", p.Addr(), p.process.Log())
}

func (p *Pooler) conf() string { return filepath.Join(p.dir, "pgbouncer.ini") }

// Start starts the pooler again after [Pooler.Kill], on its port, and returns when it accepts connections.
func (p *Pooler) Start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process != nil {
		select {
		case <-p.process.Done():
		default:
			return errors.New("pgbouncer: start: it runs; Kill it first")
		}
	}
	if err := p.configure(); err != nil {
		return err
	}
	process, err := p.home.Start(ctx, localserver.Config{
		Name: "pgbouncer", Path: p.binary, Env: p.env, Args: []string{p.conf()}, Dir: p.dir,
	})
	if err != nil {
		return fmt.Errorf("pgbouncer: %w", err)
	}
	p.process = process
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ticker := time.NewTicker(4 * time.Millisecond)
	defer ticker.Stop()
	for {
		conn, err := p.connect(ctx)
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-process.Done():
			return fmt.Errorf("pgbouncer: it ended while it started:\n%s", process.Log())
		case <-ctx.Done():
			return fmt.Errorf("pgbouncer: waiting for it to accept connections: %w; last: %w", ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

// configure writes the configuration, which the user that PgBouncer runs as may read.
func (p *Pooler) configure() error {
	users := filepath.Join(p.dir, "users.txt")
	for path, text := range map[string]string{
		users:    fmt.Sprintf("%q \"\"\n", user),
		p.conf(): p.opts.ini(p.port, p.upstream, users, p.keepsStatements),
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil { //nolint:gosec // another user reads it
			return fmt.Errorf("pgbouncer: %w", err)
		}
	}
	return nil
}

// Kill ends the pooler with SIGKILL and returns when it is gone.
func (p *Pooler) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.process.Kill()
}

// Freeze stops the pooler with SIGSTOP: connections stay open, nobody answers.
func (p *Pooler) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.process.Freeze()
}

// Thaw undoes [Pooler.Freeze].
func (p *Pooler) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.process.Thaw()
}

// Retarget puts another server behind the pooler, as an operator or a proxy does in a failover: clients stay
// connected, and their next transactions run there. In session mode clients keep the server that they have.
func (p *Pooler) Retarget(ctx context.Context, upstream string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, _, err := net.SplitHostPort(upstream); err != nil {
		return fmt.Errorf("pgbouncer: retarget to %q; give host:port of a PostgreSQL server", upstream)
	}
	p.upstream = upstream
	if err := p.configure(); err != nil {
		return err
	}
	conn, err := p.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "reload"); err != nil {
		return fmt.Errorf("pgbouncer: reload: %w", err)
	}
	return nil
}

// Console runs a SHOW command and returns its rows by column name.
func (p *Pooler) Console(ctx context.Context, show string) ([]map[string]any, error) {
	conn, err := p.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, show)
	if err != nil {
		return nil, fmt.Errorf("pgbouncer: %s: %w", show, err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToMap)
	if err != nil {
		return nil, fmt.Errorf("pgbouncer: %s: %w", show, err)
	}
	return all, nil
}

// connect opens a connection to the console, which knows the simple protocol only.
func (p *Pooler) connect(ctx context.Context) (*pgx.Conn, error) {
	c, err := pgx.ParseConfig(p.URL("pgbouncer"))
	if err != nil {
		return nil, fmt.Errorf("pgbouncer: %w", err)
	}
	c.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("pgbouncer: console: %w", err)
	}
	return conn, nil
}
