package pgmq_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	_ "github.com/lib/pq"              // the driver "postgres"
	"github.com/stretchr/testify/require"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// Whatever a client does, it does the same on every kind of handle, however that executes statements.
func TestHandles(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t)
	for _, mode := range execModes {
		dsn := withParameter(db.DSN, "default_query_exec_mode", mode)
		testBehaviour(t, db, "pgx", dsn, mode, pgxHandles)
		testBehaviour(t, db, "pgx/stdlib", dsn, mode, stdHandles("pgx"))
	}
	testBehaviour(t, db, "lib/pq", db.DSN, "text", stdHandles("postgres"))
	testBehaviour(t, db, "lib/pq", withParameter(db.DSN, "binary_parameters", "yes"), "binary", stdHandles("postgres"))
}

// execModes are the names that connection strings have for the modes of pgx.
var execModes = []string{"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"}

// testBehaviour runs the whole table on every kind of handle of a driver.
func testBehaviour(t *testing.T, db *pgmqtest.Database, driver, dsn, mode string, handles map[string]openHandle) {
	for kind, open := range handles {
		for name, behave := range behaviours {
			t.Run(fmt.Sprintf("%s/%s/%s/%s", driver, mode, kind, name), func(t *testing.T) {
				t.Parallel()
				behave(t, fixture{Client: open(t, dsn), queue: newQueueName(), db: db})
			})
		}
	}
}

// newQueueName is one that needs to be quoted everywhere.
func newQueueName() string {
	return fmt.Sprintf(`über "q", {%d} \`, queues.Add(1))
}

var queues atomic.Int64

func withParameter(dsn, name, value string) string {
	separator := "?"
	if strings.Contains(dsn, "?") {
		separator = "&"
	}
	return dsn + separator + name + "=" + value
}

// openHandle makes a client on a handle that is closed when the test ends.
type openHandle func(t *testing.T, dsn string) *pgmq.Client

var pgxHandles = map[string]openHandle{
	"Pool": func(t *testing.T, dsn string) *pgmq.Client { return pgmq.New(newPool(t, dsn)) },
	"PoolConn": func(t *testing.T, dsn string) *pgmq.Client {
		conn, err := newPool(t, dsn).Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Release)
		return pgmq.New(conn)
	},
	"Conn": func(t *testing.T, dsn string) *pgmq.Client { return pgmq.New(newConn(t, dsn)) },
	"Tx": func(t *testing.T, dsn string) *pgmq.Client {
		tx, err := newConn(t, dsn).Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return pgmq.New(tx)
	},
	"nested Tx": func(t *testing.T, dsn string) *pgmq.Client {
		tx, err := newConn(t, dsn).Begin(t.Context())
		if err == nil {
			tx, err = tx.Begin(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		return pgmq.New(tx)
	},
}

func stdHandles(driver string) map[string]openHandle {
	return map[string]openHandle{
		"DB": func(t *testing.T, dsn string) *pgmq.Client { return pgmq.NewStd(newStdDB(t, driver, dsn)) },
		"Conn": func(t *testing.T, dsn string) *pgmq.Client {
			conn, err := newStdDB(t, driver, dsn).Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			return pgmq.NewStd(conn)
		},
		"Tx": func(t *testing.T, dsn string) *pgmq.Client {
			tx, err := newStdDB(t, driver, dsn).BeginTx(context.WithoutCancel(t.Context()), nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = tx.Rollback() }) // a connection that was given up takes it along
			return pgmq.NewStd(tx)
		},
	}
}

func newPool(t testing.TB, dsn string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), withParameter(dsn, "pool_max_conns", "2"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func newConn(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func newStdDB(t testing.TB, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(2)
	t.Cleanup(func() { db.Close() })
	return db
}

// An error is about the shipment that it is about, also when pgx asks the server about all statements before it
// sends the first.
func TestShipmentThatTheServerDoesNotUnderstand(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t)
	_, err := db.Pool.Exec(t.Context(), `
		do $$
		declare
			f regprocedure;
		begin
			for f in select p.oid from pg_proc as p where p.proname = 'send_batch_topic' loop
				execute format('drop function %s', f);
			end loop;
		end;
		$$`)
	require.NoError(t, err)
	for _, mode := range execModes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			f := fixture{Client: pgmq.New(newPool(t, withParameter(db.DSN, "default_query_exec_mode", mode))), queue: newQueueName()}
			f.create(t)
			_, err := f.SendMany(t.Context(), []pgmq.Shipment{
				{Queue: f.queue, Messages: []pgmq.Outgoing{body("1")}},
				{RoutingKey: "a.b", Messages: []pgmq.Outgoing{body("2")}},
			})
			require.ErrorIs(t, err, pgmq.ErrUnsupported)
			var failed *pgmq.Error
			require.ErrorAs(t, err, &failed)
			require.Equal(t, "send_topic", failed.Op)
			require.Empty(t, f.bodies(t))
		})
	}
}
