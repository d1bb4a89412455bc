package pgmq_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

const soon = 10 * time.Second // far more than anything here takes

func await(t *testing.T, woken <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-woken:
	case <-time.After(soon):
		t.Fatalf("not woken: %s", what)
	}
}

func TestListener_HearsEachQueue(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t)
	client := pgmq.New(db.Pool)
	listener, err := client.NewListener(t.Context(), nil)
	require.NoError(t, err)
	t.Cleanup(listener.Close)

	orders, err := listener.Listen(t.Context(), "orders")
	require.NoError(t, err)
	upper, err := listener.Listen(t.Context(), "Upper")
	require.NoError(t, err)
	await(t, orders, "LISTEN took effect")
	await(t, upper, "LISTEN took effect")

	// Upper is announced under its own name by PGMQ since 1.13.1, and in lower case before.
	for _, channel := range []string{"pgmq.q_Upper.INSERT", "pgmq.q_upper.INSERT"} {
		drain(upper)
		_, err := db.Pool.Exec(t.Context(), `select pg_notify($1, '')`, channel)
		require.NoError(t, err)
		await(t, upper, channel)
	}
	require.NoError(t, client.Notify(t.Context(), "orders"))
	await(t, orders, "notified")
	// Its own notification comes over another connection, at any time.
	require.Eventually(t, func() bool { return listener.Healthy() == nil }, soon, time.Millisecond)
}

func TestListener_Callback(t *testing.T) {
	t.Parallel()
	client := pgmq.New(pgmqtest.New(t).Pool)
	listener, err := client.NewListener(t.Context(), nil)
	require.NoError(t, err)

	calls := make(chan struct{}, 10)
	require.NoError(t, listener.ListenFunc(t.Context(), "orders", func(context.Context) { calls <- struct{}{} }))
	await(t, calls, "LISTEN took effect")
	require.NoError(t, client.Notify(t.Context(), "orders"))
	await(t, calls, "notified")
	listener.Close() // waits for the callback's goroutine; goleak would find it
}

func TestListener_WakesAfterReconnect(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t)
	client := pgmq.New(db.Pool)
	listener, err := client.NewListener(t.Context(), nil)
	require.NoError(t, err)
	t.Cleanup(listener.Close)
	orders, err := listener.Listen(t.Context(), "orders")
	require.NoError(t, err)
	await(t, orders, "LISTEN took effect")

	var cut int
	err = db.Pool.QueryRow(t.Context(), `
		select count(pg_terminate_backend(pid))
		from pg_stat_activity
		where datname = current_database() and query like 'listen%'`).Scan(&cut)
	require.NoError(t, err)
	require.Equal(t, 1, cut)
	await(t, orders, "connected again: what was sent in between was not heard")
	require.NoError(t, client.Notify(t.Context(), "orders"))
	await(t, orders, "notified over the new connection")
}

func TestListener_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t)
	client := pgmq.New(db.Pool)
	ctx, cancel := context.WithCancel(t.Context())
	listener, err := client.NewListener(ctx, nil)
	require.NoError(t, err)
	orders, err := listener.Listen(t.Context(), "orders")
	require.NoError(t, err)
	await(t, orders, "LISTEN took effect")
	cancel()
	listener.Close()
	require.ErrorIs(t, listener.Healthy(), context.Canceled)

	_, err = client.NewListener(ctx, nil)
	require.ErrorIs(t, err, context.Canceled)
}

func TestListener_RefusesWhatItCannotUse(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t)
	conn, err := db.Pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	_, err = pgmq.New(conn).NewListener(t.Context(), nil)
	require.ErrorIs(t, err, pgmq.ErrUnsupported)
	_, err = pgmq.New(nil).NewListener(t.Context(), nil)
	require.ErrorIs(t, err, pgmq.ErrNilDB)

	listener, err := pgmq.New(db.Pool).NewListener(t.Context(), nil)
	require.NoError(t, err)
	defer listener.Close()
	_, err = listener.Listen(t.Context(), "a$b")
	require.ErrorIs(t, err, pgmq.ErrInvalidQueueName)
}

func drain(woken <-chan struct{}) {
	select {
	case <-woken:
	default:
	}
}

// Behind a PgBouncer in transaction mode LISTEN succeeds and nothing is ever heard. The listener finds out.
func TestListener_NoticesThatNothingArrives(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t)
	pool := newPool(t, withParameter(pgBouncerDSN(t, db), "default_query_exec_mode", "exec"))
	errs := make(chan error, 100)
	listener, err := pgmq.New(pool).NewListener(t.Context(), slog.New(errorHandler{errs}))
	require.NoError(t, err)
	t.Cleanup(listener.Close)
	select {
	case err := <-errs:
		require.ErrorIs(t, err, pgmq.ErrNotNotified)
		require.ErrorIs(t, listener.Healthy(), pgmq.ErrNotNotified)
	case <-time.After(3 * soon):
		t.Fatal("nothing was logged")
	}
}
