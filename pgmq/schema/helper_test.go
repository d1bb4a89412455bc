package schema_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// db is anything that takes a statement.
type db interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// exec runs a statement and drops its rows.
func exec(t testing.TB, on db, sql string, args ...any) {
	t.Helper()
	if err := try(t.Context(), on, sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func try(ctx context.Context, on db, sql string, args ...any) error {
	rows, err := on.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	rows.Close()
	return rows.Err()
}

// column returns the first column of a result.
func column[T any](t testing.TB, on db, sql string, args ...any) []T {
	t.Helper()
	values, err := tryColumn[T](t.Context(), on, sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return values
}

func tryColumn[T any](ctx context.Context, on db, sql string, args ...any) ([]T, error) {
	rows, err := on.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[T])
}

// one returns the only value of a result.
func one[T any](t testing.TB, on db, sql string, args ...any) T {
	t.Helper()
	values := column[T](t, on, sql, args...)
	if len(values) != 1 {
		t.Fatalf("%s: %d rows", sql, len(values))
	}
	return values[0]
}

// session connects once more, as another client would. A statement that has to wait for a lock fails
// instead: nothing here may make others wait.
func session(t testing.TB, d *pgmqtest.Database) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), d.DSN)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	exec(t, conn, `set lock_timeout = '1s'`)
	return conn
}

// rowsLookedAt counts the rows of a table that fn makes the server look at: the cost that grows, free of
// the noise of a clock.
func rowsLookedAt(t testing.TB, conn *pgx.Conn, table string, fn func(tx pgx.Tx)) int64 {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	count := func() int64 {
		return one[int64](t, tx, `
			select (s.seq_tup_read + coalesce(s.idx_tup_fetch, 0))::bigint
			from pg_stat_xact_user_tables as s
			where s.schemaname = 'pgmq' and s.relname = $1::text`, table)
	}
	before := count()
	fn(tx)
	looked := count() - before
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	return looked
}

func stateOf(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}
