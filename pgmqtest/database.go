package pgmqtest

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Database is a database for one test.
type Database struct {
	// DSN is its connection string.
	DSN string
	// Pool is a pool of connections to it, at most 16.
	Pool *pgxpool.Pool
	// Server is where it is.
	Server *Server
}

// New gives a test a database of its own, with PGMQ installed. It is dropped when the test ends, whoever is
// still connected to it. With options it is on a server of its own too.
func New(t testing.TB, opts ...Option) *Database {
	t.Helper()
	return serverFor(t, opts).Database(t)
}

// NewEmpty is New without PGMQ.
func NewEmpty(t testing.TB, opts ...Option) *Database {
	t.Helper()
	return serverFor(t, opts).Empty(t)
}

func serverFor(t testing.TB, opts []Option) *Server {
	t.Helper()
	if len(opts) > 0 {
		return StartServer(t, opts...)
	}
	server, err := sharedServer()
	if err != nil {
		t.Fatal(err)
	}
	return server
}

const (
	// databaseTimeout limits creating or dropping one database.
	databaseTimeout = time.Minute
	// releaseTimeout is how long a test's connections may take to come back to its pool.
	releaseTimeout = 5 * time.Second
)

func newDatabase(
	t testing.TB, server *Server, create func(context.Context) (string, func(context.Context) error, error),
) *Database {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), databaseTimeout)
	defer cancel()

	dsn, drop, err := create(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dropDatabaseOf(t, server, drop) })

	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	config.MaxConns = 16
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closePool(t, pool) })
	return &Database{DSN: dsn, Pool: pool, Server: server}
}

func dropDatabaseOf(t testing.TB, server *Server, drop func(context.Context) error) {
	t.Helper()
	if server.stopped.Load() {
		return // it takes its databases with it
	}
	ctx, cancel := context.WithTimeout(context.Background(), databaseTimeout)
	defer cancel()
	if err := drop(ctx); err != nil {
		t.Error(err)
	}
}

// closePool closes the pool, which waits for every connection. One that the test never released would hang
// it, without a word about why.
func closePool(t testing.TB, pool *pgxpool.Pool) {
	t.Helper()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		pool.Close()
	}()
	select {
	case <-closed:
	case <-time.After(releaseTimeout):
		t.Errorf("pgmqtest: the test has ended, and %d of its connections were not released", pool.Stat().AcquiredConns())
	}
}
