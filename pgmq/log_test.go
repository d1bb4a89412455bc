package pgmq_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

func TestLog(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t)
	log := &logged{}
	for name, client := range map[string]*pgmq.Client{
		"New":     pgmq.New(db.Pool, pgmq.WithLogger(log.logger(slog.LevelDebug))),
		"NewStd":  pgmq.NewStd(newStdDB(t, "postgres", db.DSN), pgmq.WithLogger(log.logger(slog.LevelDebug))),
		"Connect": connect(t, db.DSN, pgmq.WithLogger(log.logger(slog.LevelDebug))),
	} {
		f := fixture{Client: client, queue: newQueueName()}
		f.create(t)
		log.take(t)

		f.send(t, `"s3cr3t"`, `2`)
		log.require(t, entry{Operation: "send", Queue: f.queue, Count: 2, IDs: []int64{1, 2}})
		_, err := f.Read(t.Context(), f.queue, time.Second, pgmq.Limit(5))
		require.NoError(t, err)
		log.require(t, entry{Operation: "read", Queue: f.queue, Count: 2, IDs: []int64{1, 2}})
		_, err = f.Delete(t.Context(), f.queue, 2, 3)
		require.NoError(t, err)
		log.require(t, entry{Operation: "delete", Queue: f.queue, Count: 1, IDs: []int64{2}})

		// Many are counted only.
		_, err = f.SendBatch(t.Context(), f.queue, make([]pgmq.Outgoing, 100))
		require.NoError(t, err)
		log.require(t, entry{Operation: "send", Queue: f.queue, Count: 100})
		// What looks like an id is none.
		_, err = f.Purge(t.Context(), f.queue)
		require.NoError(t, err)
		log.require(t, entry{Operation: "purge", Queue: f.queue})

		_, err = f.SendMany(t.Context(), []pgmq.Shipment{{Queue: f.queue, Messages: []pgmq.Outgoing{body("1")}}})
		require.NoError(t, err)
		log.require(t, entry{Operation: "send", Queue: f.queue, Statements: 1})

		// A client in a transaction logs as well, and what fails is logged with its error.
		missing := newQueueName()
		err = f.InTx(t.Context(), func(c *pgmq.Client) error {
			_, err := c.Pop(t.Context(), missing, 1)
			return err
		})
		require.ErrorIs(t, err, pgmq.ErrQueueNotFound)
		lines := log.take(t)
		require.GreaterOrEqual(t, len(lines), 2, name)
		require.Equal(t, "pop", lines[0].Operation)
		require.Equal(t, missing, lines[0].Queue)
		require.Contains(t, lines[0].Error, "42P01")
		require.Equal(t, "transaction", lines[len(lines)-1].Operation)
		require.Contains(t, lines[len(lines)-1].Error, "42P01")
		for _, line := range lines {
			require.Positive(t, line.Duration)
			require.Equal(t, "DEBUG", line.Level)
		}
	}
	require.NotContains(t, log.all.String(), "s3cr3t", "bodies are not logged")
}

func TestLogOfConnecting(t *testing.T) {
	t.Parallel()
	log := &logged{}
	connect(t, pgmqtest.New(t).DSN, pgmq.WithLogger(log.logger(slog.LevelDebug)))
	log.require(t, entry{Operation: "connect"})
}

func TestLogBelowDebugIsSilent(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t)
	log := &logged{}
	for _, logger := range []*slog.Logger{nil, log.logger(slog.LevelInfo)} {
		f := fixture{Client: pgmq.New(db.Pool, pgmq.WithLogger(logger)), queue: newQueueName()}
		f.create(t)
		f.send(t, "1")
		require.Empty(t, log.take(t))
	}
}

// Logging that nobody asked for costs no allocation.
//
//nolint:paralleltest // allocations of other tests would be counted too
func TestLogIsFree(t *testing.T) {
	conn := newConn(t, pgmqtest.New(t).DSN)
	silent := fixture{Client: pgmq.New(conn), queue: newQueueName()}
	silent.create(t)
	info := fixture{Client: pgmq.New(conn, pgmq.WithLogger((&logged{}).logger(slog.LevelInfo))), queue: silent.queue}
	debug := fixture{Client: pgmq.New(conn, pgmq.WithLogger((&logged{}).logger(slog.LevelDebug))), queue: silent.queue}
	allocs := func(f fixture) float64 {
		return testing.AllocsPerRun(100, func() {
			if _, err := f.Send(context.Background(), f.queue, pgmq.Outgoing{}); err != nil {
				t.Fatal(err)
			}
		})
	}
	want := allocs(silent)
	require.InDelta(t, want, allocs(info), 0)
	require.Greater(t, allocs(debug), want)
}

// logged collects a log; it is not for concurrent use.
type logged struct {
	unread, all bytes.Buffer
}

type entry struct {
	Level      string
	Operation  string
	Queue      string
	Count      int
	IDs        []int64
	Statements int
	Error      string
	Duration   time.Duration
}

func (l *logged) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{Level: level}))
}

func (l *logged) Write(line []byte) (int, error) {
	l.all.Write(line)
	return l.unread.Write(line)
}

// take returns what was logged since the last call.
func (l *logged) take(t *testing.T) []entry {
	t.Helper()
	var entries []entry
	for decoder := json.NewDecoder(&l.unread); decoder.More(); {
		var e entry
		require.NoError(t, decoder.Decode(&e))
		entries = append(entries, e)
	}
	l.unread.Reset()
	return entries
}

// require says that nothing was logged but this, which took some time.
func (l *logged) require(t *testing.T, want entry) {
	t.Helper()
	got := l.take(t)
	require.Len(t, got, 1)
	require.Positive(t, got[0].Duration)
	want.Level, want.Duration = "DEBUG", got[0].Duration
	require.Equal(t, want, got[0])
}
