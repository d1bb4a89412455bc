package pgmq_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// queries signals each statement of a pool that has ended.
type queries chan struct{}

func (queries) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

func (q queries) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {
	select {
	case q <- struct{}{}:
	default:
	}
}

// newPollingPool is a pool of one connection: who held it while waiting would keep others from sending.
func newPollingPool(t testing.TB, d *pgmqtest.Database) (*pgxpool.Pool, queries) {
	t.Helper()
	config, err := pgxpool.ParseConfig(d.DSN)
	if err != nil {
		t.Fatal(err)
	}
	looks := make(queries, 100)
	config.MaxConns, config.ConnConfig.Tracer = 1, looks
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool, looks
}

type readResult struct {
	msgs []pgmq.Message
	err  error
}

func readInBackground(ctx context.Context, c *pgmq.Client, opts ...pgmq.ReadOption) <-chan readResult {
	done := make(chan readResult, 1)
	go func() {
		limited, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		msgs, err := c.Read(limited, "q", time.Minute, opts...)
		done <- readResult{msgs, err}
	}()
	return done
}

// A Read that waits finds what is sent after it has begun, by looking again, and holds no connection.
func TestPollLooksAgain(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	for name, opts := range map[string][]pgmq.ReadOption{
		"plain":   {},
		"where":   {pgmq.Where([]byte(`{"n": 1}`))},
		"grouped": {pgmq.Grouped(pgmq.RoundRobin)},
	} {
		newQueue(t, pgmq.New(d.Pool), "q")
		pool, looks := newPollingPool(t, d)
		c := pgmq.New(pool)
		done := readInBackground(t.Context(), c, append(opts, pgmq.Poll(time.Hour, time.Millisecond))...)
		await(t, looks, "the first look")
		await(t, looks, "the second look, after the queue was empty")
		if _, err := c.Send(t.Context(), "q", body(`{"n": 1}`)); err != nil {
			t.Fatal(err)
		}
		if got := <-done; got.err != nil || len(got.msgs) != 1 {
			t.Errorf("%s: read %v, %v", name, got.msgs, got.err)
		}
		if _, err := c.Purge(t.Context(), "q"); err != nil {
			t.Fatal(err)
		}
	}
}

// A notification wakes a Read that would not look again for an hour.
func TestPollIsWoken(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	pool, looks := newPollingPool(t, d)
	c := pgmq.New(pool)
	newQueue(t, pgmq.New(d.Pool), "q")
	if err := pgmq.New(d.Pool).EnableNotify(t.Context(), "q", 0); err != nil {
		t.Fatal(err)
	}
	listener, err := c.NewListener(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()

	done := readInBackground(t.Context(), c, pgmq.Poll(time.Hour, time.Hour), pgmq.WokenBy(listener))
	await(t, looks, "the first look, when it listens already")
	if _, err := pgmq.New(d.Pool).Send(t.Context(), "q", body(`1`)); err != nil {
		t.Fatal(err)
	}
	if got := <-done; got.err != nil || len(got.msgs) != 1 {
		t.Errorf("read %v, %v", got.msgs, got.err)
	}
}

func TestPollEnds(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	pool, looks := newPollingPool(t, d)
	c := pgmq.New(pool)
	newQueue(t, pgmq.New(d.Pool), "q")

	start := time.Now()
	msgs, err := c.Read(t.Context(), "q", 0, pgmq.Poll(20*time.Millisecond, time.Hour))
	if took := time.Since(start); err != nil || len(msgs) != 0 || took < 20*time.Millisecond {
		t.Errorf("an empty queue gave %v, %v after %v", msgs, err, took)
	}
	if len(looks) != 2 {
		t.Fatalf("it has looked %d times, want at the beginning and at the end", len(looks))
	}
	await(t, looks, "a look")
	await(t, looks, "a look")
	if msgs, err = c.Read(t.Context(), "q", 0, pgmq.Poll(0, time.Hour)); err != nil || len(msgs) != 0 {
		t.Errorf("without a wait: %v, %v", msgs, err)
	}
	await(t, looks, "a look")

	ctx, cancel := context.WithCancel(t.Context())
	done := readInBackground(ctx, c, pgmq.Poll(time.Hour, time.Hour))
	await(t, looks, "a look")
	cancel()
	var operation *pgmq.Error
	if got := <-done; !errors.Is(got.err, context.Canceled) || !errors.As(got.err, &operation) {
		t.Errorf("after its context has ended: %v, %v", got.msgs, got.err)
	}
}

// The server waits, too, if asked to; in a transaction as well.
func TestServerPoll(t *testing.T) {
	t.Parallel()
	d := pgmqtest.New(t)
	c := pgmq.New(d.Pool)
	newQueue(t, c, "q")
	for name, opts := range map[string][]pgmq.ReadOption{
		"plain":      {},
		"where":      {pgmq.Where([]byte(`{"n": 1}`))},
		"fill":       {pgmq.Grouped(pgmq.Fill)},
		"roundrobin": {pgmq.Grouped(pgmq.RoundRobin)},
		"head":       {pgmq.Grouped(pgmq.Head)},
	} {
		// One statement finds what becomes visible while it runs.
		if _, err := c.Send(t.Context(), "q", body(`{"n": 1}`), pgmq.VisibleIn(100*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		msgs, err := c.Read(t.Context(), "q", 0, append(opts, pgmq.ServerPoll(time.Minute, time.Millisecond))...)
		if err != nil || len(msgs) != 1 {
			t.Errorf("%s: read %v, %v", name, msgs, err)
		}
		if _, err := c.Purge(t.Context(), "q"); err != nil {
			t.Fatal(err)
		}
	}
	if msgs, err := c.Read(t.Context(), "q", 0, pgmq.ServerPoll(0, time.Second)); err != nil || len(msgs) != 0 {
		t.Errorf("without a wait: %v, %v", msgs, err)
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	c := pgmq.New(nil)
	listener := &pgmq.Listener{}
	for name, tt := range map[string]struct {
		vt   time.Duration
		opts []pgmq.ReadOption
		want pgmq.ValueError
	}{
		"negative vt":          {-1, nil, pgmq.ValueError{Name: "vt", Value: time.Duration(-1), Rule: "zero or more"}},
		"vt too long":          {math.MaxInt64, nil, pgmq.ValueError{Name: "vt", Value: time.Duration(math.MaxInt64), Rule: "at most 2147483647 seconds"}},
		"negative limit":       {0, []pgmq.ReadOption{pgmq.Limit(-1)}, pgmq.ValueError{Name: "limit", Value: -1, Rule: "from 0 to 2147483647"}},
		"limit too large":      {0, []pgmq.ReadOption{pgmq.Limit(math.MaxInt32 + 1)}, pgmq.ValueError{Name: "limit", Value: math.MaxInt32 + 1, Rule: "from 0 to 2147483647"}},
		"condition no JSON":    {0, []pgmq.ReadOption{pgmq.Where([]byte(`{`))}, pgmq.ValueError{Name: "condition", Value: "\"{\"", Rule: "valid JSON"}},
		"condition no UTF-8":   {0, []pgmq.ReadOption{pgmq.Where([]byte("\"\xff\""))}, pgmq.ValueError{Name: "condition", Value: `"\"\xff\""`, Rule: "valid JSON"}},
		"condition, grouped":   {0, []pgmq.ReadOption{pgmq.Where([]byte(`{}`)), pgmq.Grouped(pgmq.Head)}, pgmq.ValueError{Name: "condition", Value: `"{}"`, Rule: "absent in a grouped read"}},
		"negative wait":        {0, []pgmq.ReadOption{pgmq.Poll(-1, time.Second)}, pgmq.ValueError{Name: "wait", Value: time.Duration(-1), Rule: "zero or more"}},
		"no interval":          {0, []pgmq.ReadOption{pgmq.Poll(time.Second, 0)}, pgmq.ValueError{Name: "every", Value: time.Duration(0), Rule: "at least 1ms"}},
		"server: no interval":  {0, []pgmq.ReadOption{pgmq.ServerPoll(time.Second, -1)}, pgmq.ValueError{Name: "every", Value: time.Duration(-1), Rule: "at least 1ms"}},
		"server: wait":         {0, []pgmq.ReadOption{pgmq.ServerPoll(math.MaxInt64, time.Second)}, pgmq.ValueError{Name: "wait", Value: time.Duration(math.MaxInt64), Rule: "at most 2147483647 seconds"}},
		"server: interval":     {0, []pgmq.ReadOption{pgmq.ServerPoll(1, math.MaxInt64)}, pgmq.ValueError{Name: "every", Value: time.Duration(math.MaxInt64), Rule: "at most 2147483647 milliseconds"}},
		"both":                 {0, []pgmq.ReadOption{pgmq.Poll(1, time.Second), pgmq.ServerPoll(1, time.Second)}, pgmq.ValueError{Name: "poll", Value: "Poll and ServerPoll", Rule: "one of both"}},
		"both, the other way":  {0, []pgmq.ReadOption{pgmq.ServerPoll(1, time.Second), pgmq.Poll(1, time.Second)}, pgmq.ValueError{Name: "poll", Value: "Poll and ServerPoll", Rule: "one of both"}},
		"woken, not polling":   {0, []pgmq.ReadOption{pgmq.WokenBy(listener)}, pgmq.ValueError{Name: "WokenBy", Value: "given", Rule: "together with Poll"}},
		"woken, by the server": {0, []pgmq.ReadOption{pgmq.WokenBy(listener), pgmq.ServerPoll(1, time.Second)}, pgmq.ValueError{Name: "WokenBy", Value: "given", Rule: "together with Poll"}},
	} {
		_, err := c.Read(t.Context(), "q", tt.vt, tt.opts...)
		requireValueError(t, name, err, tt.want)
	}
	_, err := c.Pop(t.Context(), "q", -1)
	requireValueError(t, "Pop", err, pgmq.ValueError{Name: "limit", Value: -1, Rule: "from 0 to 2147483647"})
}

func requireValueError(t testing.TB, name string, err error, want pgmq.ValueError) {
	t.Helper()
	var got *pgmq.ValueError
	var operation *pgmq.Error
	if !errors.As(err, &got) || *got != want || !errors.As(err, &operation) {
		t.Errorf("%s: got %v, want %v", name, err, &want)
	}
}
