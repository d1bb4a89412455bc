package pgmqtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Server is a Postgres server. All its methods may be called at once.
type Server struct {
	dsn string

	// engine runs the server. Nil: it was given, so it is not ours to stop.
	engine engine
	// copyFiles: databases may be created in the way that makes the server write everything to disk first.
	copyFiles bool
	// release gives back what Start took on a given server.
	release func(context.Context) error

	templateMu sync.Mutex
	template   string // the database that CreateDatabase clones; empty until it is needed

	// stopped is set by Stop and Kill: the server is meant to be down.
	stopped atomic.Bool
}

// engine is what runs a Postgres server.
type engine interface {
	dsn() string
	start(context.Context) error // nothing when it runs
	stop(context.Context, shutdown) error
	restartCommand() []string
	close() error // ends and removes it
}

// shutdown is how a server is stopped.
type shutdown string

const (
	fast      shutdown = "fast"      // connections are ended, what is in memory is written
	immediate shutdown = "immediate" // as in a crash: the next start recovers
)

// ErrGivenServer is the error of stopping or starting a server that was named by the environment.
var ErrGivenServer = errors.New("pgmqtest: the server was given by the environment and is not stopped or started from here")

// StartServer starts a server for this test alone, which the test may stop, kill and restart. It is removed
// when the test ends. A server named by the environment is never used.
//
//	server := pgmqtest.StartServer(t)
//	db := server.Database(t)
//	// Use db. What happens to the application when Postgres crashes?
//	server.Kill(t.Context())
//	server.Start(t.Context())
func StartServer(t testing.TB, opts ...Option) *Server {
	t.Helper()
	s, err := startServer(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Start finds or starts a server for a program: a demonstration, a benchmark. In this order it takes
//
//  1. the database named by DATABASE_URL, as it is;
//  2. a new, empty database on the server named by PGMQ_TEST_DSN;
//  3. a server started for this program alone (see the package documentation).
//
// With options it is always the third. Close it at the end.
func Start(ctx context.Context, opts ...Option) (*Server, error) {
	if len(opts) > 0 {
		return startServer(ctx, opts)
	}
	if dsn := databaseURL(); dsn != "" {
		return &Server{dsn: dsn}, nil
	}
	if given := givenServer(); given != nil {
		dsn, drop, err := given.create(ctx, emptyTemplate)
		if err != nil {
			return nil, err
		}
		return &Server{dsn: dsn, release: drop}, nil
	}
	return startServer(ctx, nil)
}

// Connect is Start and a pool of connections to the server's database. stop closes both.
//
//	pool, stop, err := pgmqtest.Connect(ctx)
//	if err != nil {
//		return err
//	}
//	defer stop()
func Connect(ctx context.Context, opts ...Option) (pool *pgxpool.Pool, stop func() error, err error) {
	s, err := Start(ctx, opts...)
	if err != nil {
		return nil, nil, err
	}
	pool, err = pgxpool.New(ctx, s.DSN())
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("pgmqtest: %w", err), s.Close())
	}
	stop = func() error {
		pool.Close()
		return s.Close()
	}
	return pool, stop, nil
}

// DSN is the connection string of the server's maintenance database, or of the one that was given. On a
// server started here it belongs to the superuser and holds no PGMQ.
func (s *Server) DSN() string { return s.dsn }

// Database is New on this server.
func (s *Server) Database(t testing.TB) *Database {
	t.Helper()
	return newDatabase(t, s, s.CreateDatabase)
}

// Empty is NewEmpty on this server.
func (s *Server) Empty(t testing.TB) *Database {
	t.Helper()
	return newDatabase(t, s, func(ctx context.Context) (string, func(context.Context) error, error) {
		return s.create(ctx, emptyTemplate)
	})
}

// Stop ends all connections and stops the server in order. A stopped server may be stopped.
func (s *Server) Stop(ctx context.Context) error {
	return s.halt(ctx, fast)
}

// Kill stops the server as a crash would: at once, with recovery at the next start.
func (s *Server) Kill(ctx context.Context) error {
	return s.halt(ctx, immediate)
}

// Start starts the server again, at the same address and with its data. A running server may be started.
func (s *Server) Start(ctx context.Context) error {
	if s.engine == nil {
		return ErrGivenServer
	}
	if err := s.engine.start(ctx); err != nil {
		return fmt.Errorf("pgmqtest: start the server: %w", err)
	}
	s.stopped.Store(false)
	return nil
}

// Restart is Stop and Start.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(ctx); err != nil {
		return err
	}
	return s.Start(ctx)
}

// RestartCommand is a command that restarts the server from outside, run by the user who runs the test. It
// keeps address and data, and returns when the server accepts connections. Nil for a server that was given.
func (s *Server) RestartCommand() []string {
	if s.engine == nil {
		return nil
	}
	return s.engine.restartCommand()
}

// Close stops the server and removes it, if it was started here. A server that was given keeps nothing
// either.
func (s *Server) Close() error {
	var err error
	if s.release != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		err = s.release(ctx)
	}
	if s.engine != nil {
		s.stopped.Store(true)
		err = s.engine.close()
	}
	if err != nil {
		return fmt.Errorf("pgmqtest: close the server: %w", err)
	}
	return nil
}

func (s *Server) halt(ctx context.Context, how shutdown) error {
	if s.engine == nil {
		return ErrGivenServer
	}
	s.stopped.Store(true) // at once: nobody is to start it again meanwhile
	if err := s.engine.stop(ctx, how); err != nil {
		s.stopped.Store(false)
		return fmt.Errorf("pgmqtest: stop the server: %w", err)
	}
	return nil
}

// admin calls f with a connection to the maintenance database. A server of ours that died meanwhile is
// started again: the tests to come are not to blame.
func (s *Server) admin(ctx context.Context, f func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, s.dsn)
	if err != nil && s.engine != nil && !s.stopped.Load() && ctx.Err() == nil {
		if startErr := s.engine.start(ctx); startErr != nil {
			return errors.Join(err, startErr)
		}
		conn, err = pgx.Connect(ctx, s.dsn)
	}
	if err != nil {
		return err
	}
	// The connection is closed at once also when ctx has ended.
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return errors.Join(f(conn), conn.Close(closing))
}

// sharedServer is the one server of all tests of this process.
var sharedServer = sync.OnceValues(func() (*Server, error) {
	if given := givenServer(); given != nil {
		return given, nil
	}
	// An image may have to be pulled.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	return startServer(ctx, nil)
})
