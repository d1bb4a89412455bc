package watermillpgmq_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
)

const (
	// patience bounds the wait for what has to happen.
	patience = 30 * time.Second
	// never is longer than any test: what is configured to take as long cannot be why something happened.
	never = time.Hour
)

func newPublisher(t testing.TB, db *pgxpool.Pool, cfg watermillpgmq.PublisherConfig) *watermillpgmq.Publisher {
	t.Helper()
	publisher, err := watermillpgmq.NewPublisher(db, cfg, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, publisher.Close()) })
	return publisher
}

func newSubscriber(t testing.TB, db *pgxpool.Pool, cfg watermillpgmq.SubscriberConfig) *watermillpgmq.Subscriber {
	t.Helper()
	subscriber, err := watermillpgmq.NewSubscriber(db, cfg, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, subscriber.Close()) })
	return subscriber
}

// subscribe ends with the test.
func subscribe(t testing.TB, subscriber message.Subscriber, topic string) <-chan *message.Message {
	t.Helper()
	messages, err := subscriber.Subscribe(t.Context(), topic)
	require.NoError(t, err)
	return messages
}

// bind makes sure that messages for a topic are kept.
func bind(t testing.TB, db *pgxpool.Pool, topic string, groups ...string) {
	t.Helper()
	for _, group := range append(groups, "")[:max(len(groups), 1)] {
		subscriber := newSubscriber(t, db, watermillpgmq.SubscriberConfig{ConsumerGroup: group})
		require.NoError(t, subscriber.SubscribeInitialize(topic))
	}
}

func newMessage(payload string) *message.Message {
	return message.NewMessage(watermill.NewUUID(), message.Payload(payload))
}

// newMessages have the numbers from 1 to n as payloads.
func newMessages(n int) []*message.Message {
	messages := make([]*message.Message, n)
	for i := range messages {
		messages[i] = newMessage(fmt.Sprint(i + 1))
	}
	return messages
}

func receive(t testing.TB, messages <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case msg, open := <-messages:
		require.True(t, open, "the channel is closed")
		require.NotNil(t, msg)
		return msg
	case <-time.After(patience):
		require.FailNow(t, "no message arrives")
		return nil
	}
}

// receiveAll acks n messages and returns them.
func receiveAll(t testing.TB, messages <-chan *message.Message, n int) []*message.Message {
	t.Helper()
	all := make([]*message.Message, n)
	for i := range all {
		all[i] = receive(t, messages)
		require.True(t, all[i].Ack())
	}
	return all
}

// await waits for a channel to be closed, or for a signal in it.
func await[T any](t testing.TB, c <-chan T, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		require.FailNow(t, "in vain", "waited for: %s", what)
	}
}

// eventually waits until the database, which gives no signal, is as check wants it.
func eventually(t testing.TB, check func() error) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			require.NoError(t, err)
		case <-tick.C:
		}
	}
}

// scalar is the one value that a query returns.
func scalar[T any](t testing.TB, db *pgxpool.Pool, sql string, args ...any) T {
	t.Helper()
	rows, err := db.Query(context.WithoutCancel(t.Context()), sql, args...)
	require.NoError(t, err)
	value, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[T])
	require.NoError(t, err)
	return value
}

func execute(t testing.TB, db *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	_, err := db.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// table is the quoted name of a queue's table.
func table(queue string) string { return pgx.Identifier{"pgmq", "q_" + queue}.Sanitize() }

// row is what a queue's table says of a message, besides its content.
type row struct {
	ID        int64
	ReadCount int
	Hidden    bool
}

func rowsOf(t testing.TB, db *pgxpool.Pool, queue string) []row {
	t.Helper()
	rows, err := db.Query(context.WithoutCancel(t.Context()), `
		select msg_id, read_ct, vt > clock_timestamp()
		from `+table(queue)+`
		order by msg_id`)
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	require.NoError(t, err)
	return all
}

// awaitRows waits until a queue holds this many messages, of which so many are hidden.
func awaitRows(t testing.TB, db *pgxpool.Pool, queue string, total, hidden int) {
	t.Helper()
	eventually(t, func() error {
		rows := rowsOf(t, db, queue)
		n := 0
		for _, r := range rows {
			if r.Hidden {
				n++
			}
		}
		if len(rows) != total || n != hidden {
			return fmt.Errorf("queue %s has %d messages, %d of them hidden; wanted: %d, %d", queue, len(rows), n, total, hidden)
		}
		return nil
	})
}

// written counts the messages in all queues and archives.
func written(t testing.TB, db *pgxpool.Pool) int {
	t.Helper()
	return scalar[int](t, db, `
		select coalesce(sum((xpath('/row/n/text()',
			query_to_xml(format('select count(*) as n from pgmq.%I', c.relname), false, true, '')))[1]::text::int), 0)::int
		from pg_catalog.pg_class as c
		where c.relnamespace = to_regnamespace('pgmq') and c.relkind = 'r' and c.relname ~ '^[qa]_'`)
}

// listeners are the backends that listen for this database's subscribers.
func listeners(t testing.TB, db *pgxpool.Pool) []int {
	t.Helper()
	rows, err := db.Query(t.Context(), `
		select pid
		from pg_catalog.pg_stat_activity
		where datname = current_database() and query ilike 'listen %' and state = 'idle'`)
	require.NoError(t, err)
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	require.NoError(t, err)
	return pids
}

// awaitListener waits until one subscriber hears notifications.
func awaitListener(t testing.TB, db *pgxpool.Pool) {
	t.Helper()
	eventually(t, func() error {
		if pids := listeners(t, db); len(pids) != 1 {
			return fmt.Errorf("%d backends listen", len(pids))
		}
		return nil
	})
}

// lockQueue makes every statement on a queue's table wait, until unlock is called.
func lockQueue(t testing.TB, db *pgxpool.Pool, queue string) (unlock func()) {
	t.Helper()
	tx, err := db.Begin(t.Context())
	require.NoError(t, err)
	unlock = sync.OnceFunc(func() {
		if err := tx.Rollback(context.WithoutCancel(t.Context())); err != nil && !errors.Is(err, pgx.ErrTxClosed) {
			t.Error(err)
		}
	})
	t.Cleanup(unlock)
	_, err = tx.Exec(t.Context(), `lock table `+table(queue)+` in access exclusive mode`)
	require.NoError(t, err)
	return unlock
}

// lockWaiters are the backends whose statements wait for a lock.
func lockWaiters(t testing.TB, db *pgxpool.Pool) []int {
	t.Helper()
	rows, err := db.Query(t.Context(), `
		select pid
		from pg_catalog.pg_stat_activity
		where datname = current_database() and wait_event_type = 'Lock'`)
	require.NoError(t, err)
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	require.NoError(t, err)
	return pids
}

// awaitLockWaiters waits until n statements wait for a lock.
func awaitLockWaiters(t testing.TB, db *pgxpool.Pool, n int) {
	t.Helper()
	eventually(t, func() error {
		if pids := lockWaiters(t, db); len(pids) != n {
			return fmt.Errorf("%d statements wait for a lock, wanted: %d", len(pids), n)
		}
		return nil
	})
}

// announcing is a context that says when somebody begins to wait for its end. A Publish call whose
// message has it does so once it has been queued for a flush.
type announcing struct {
	context.Context
	awaited  chan struct{}
	announce func()
}

func announce(ctx context.Context) *announcing {
	awaited := make(chan struct{})
	return &announcing{ctx, awaited, sync.OnceFunc(func() { close(awaited) })}
}

func (c *announcing) Done() <-chan struct{} {
	c.announce()
	return c.Context.Done()
}

// poolLike is a pool of its own for the database of another one.
func poolLike(t testing.TB, db *pgxpool.Pool, change func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	cfg := db.Config()
	change(cfg)
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// newContext is one that the test ends itself.
func newContext(t testing.TB) (context.Context, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, cancel
}
