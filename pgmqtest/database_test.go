package pgmqtest_test

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// TestNew: each test has its own PGMQ, and what it does there is seen by no other.
func TestNew(t *testing.T) {
	t.Parallel()
	for range 4 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			db := pgmqtest.New(t)
			var queues int
			err := db.Pool.QueryRow(t.Context(), `
				with created as (select pgmq.create('mine'::text))
				select count(*) from created, pgmq.list_queues()`).Scan(&queues)
			if err != nil {
				t.Fatal(err)
			}
			var id int64
			err = db.Pool.QueryRow(t.Context(), `select pgmq.send('mine'::text, '{}'::jsonb)`).Scan(&id)
			if err != nil || id != 1 {
				t.Errorf("sent message %d, %v; want 1", id, err)
			}
		})
	}
}

func TestNewEmpty(t *testing.T) {
	t.Parallel()
	db := pgmqtest.NewEmpty(t)
	var found bool
	if err := db.Pool.QueryRow(t.Context(), `select to_regnamespace('pgmq') is not null`).Scan(&found); err != nil || found {
		t.Errorf("PGMQ is there: %t, %v", found, err)
	}
}

// TestNewWithOptions: options ask for a server of its own.
func TestNewWithOptions(t *testing.T) {
	t.Parallel()
	shared, own := pgmqtest.New(t), pgmqtest.New(t, pgmqtest.Setting("work_mem", "3MB"))
	if shared.Server == own.Server || hostPort(shared.Pool.Config().ConnConfig) == hostPort(own.Pool.Config().ConnConfig) {
		t.Error("both are on the same server")
	}
	if again := pgmqtest.NewEmpty(t); again.Server != shared.Server {
		t.Error("without options there is more than one server")
	}
}

// TestDropped: when a test ends its database goes, though somebody is connected to it.
func TestDropped(t *testing.T) {
	t.Parallel()
	server := pgmqtest.NewEmpty(t).Server
	var name string
	t.Run("a test", func(t *testing.T) {
		db := server.Database(t)
		name = db.Pool.Config().ConnConfig.Database
		if _, err := pgx.Connect(t.Context(), db.DSN); err != nil { // and never closed
			t.Fatal(err)
		}
		if !databaseExists(t, server, name) {
			t.Errorf("there is no database %q", name)
		}
	})
	if databaseExists(t, server, name) {
		t.Errorf("database %q is still there", name)
	}
}

// TestConnectionNotReleased: a test that keeps a connection is told so, rather than hanging.
func TestConnectionNotReleased(t *testing.T) {
	t.Parallel()
	careless := &recorder{TB: t}
	db := pgmqtest.NewEmpty(careless)
	conn, err := db.Pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	careless.end()
	conn.Release()
	if len(careless.errors) != 1 || !containsAll(careless.errors[0], "1 of its connections") {
		t.Errorf("got errors %q, want one about the connection", careless.errors)
	}
}

// A recorder is a test that may fail.
type recorder struct {
	testing.TB
	cleanups []func()
	errors   []string
}

func (r *recorder) Cleanup(f func())                  { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Error(args ...any)                 { r.errors = append(r.errors, fmt.Sprint(args...)) }
func (r *recorder) Errorf(format string, args ...any) { r.Error(fmt.Sprintf(format, args...)) }

func (r *recorder) end() {
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
}

func databaseExists(t *testing.T, server *pgmqtest.Server, name string) (exists bool) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	err = conn.QueryRow(t.Context(), `
		select exists (select from pg_catalog.pg_database as d where d.datname = $1::text)`, name).Scan(&exists)
	if err := errors.Join(err, conn.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	return exists
}

func hostPort(config *pgx.ConnConfig) string {
	return net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))
}

func containsAll(text string, parts ...string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}
