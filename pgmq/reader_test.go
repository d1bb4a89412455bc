package pgmq_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
	"github.com/watermill-pgmq/watermill-pgmq/pgmqtest"
)

// never is longer than any test takes: what happens within it happens for another reason.
const never = 10 * time.Minute

func newReader(t *testing.T, db *pgxpool.Pool, cfg pgmq.ReaderConfig) *pgmq.Reader {
	t.Helper()
	reader, err := pgmq.New(db).NewReader(t.Context(), "work", cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, reader.Close(context.Background())) })
	return reader
}

// workQueue is a database with the queue "work".
func workQueue(t *testing.T) *pgxpool.Pool {
	t.Helper()
	db := pgmqtest.New(t).Pool
	require.NoError(t, pgmq.New(db).CreateQueue(t.Context(), "work"))
	return db
}

// send sends messages of one group, whose bodies count from 1 on.
func send(t *testing.T, db *pgxpool.Pool, group string, n int, opts ...pgmq.SendOption) []int64 {
	t.Helper()
	msgs := make([]pgmq.Outgoing, n)
	for i := range msgs {
		msgs[i] = pgmq.Outgoing{
			Body:    json.RawMessage(fmt.Sprint(i + 1)),
			Headers: json.RawMessage(fmt.Sprintf(`{"x-pgmq-group": %q}`, group)),
		}
	}
	ids, err := pgmq.New(db).SendBatch(t.Context(), "work", msgs, opts...)
	require.NoError(t, err)
	return ids
}

func next(t *testing.T, reader *pgmq.Reader) *pgmq.Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	lease, err := reader.Next(ctx)
	require.NoError(t, err)
	return lease
}

// requireNone fails if a message is handed out although none may be. What is forbidden would happen at once;
// the wait only gives it the time to.
func requireNone(t *testing.T, reader *pgmq.Reader) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	lease, err := reader.Next(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded, "handed out: %+v", lease)
}

func length(t *testing.T, db *pgxpool.Pool) int64 {
	t.Helper()
	m, err := pgmq.New(db).Metrics(t.Context(), "work")
	require.NoError(t, err)
	return m.Length
}

func TestReader_HandsOutInOrderAndSettles(t *testing.T) {
	t.Parallel()
	for name, archive := range map[string]bool{"delete": false, "archive": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := workQueue(t)
			ids := send(t, db, "", 100)
			reader := newReader(t, db, pgmq.ReaderConfig{Archive: archive})
			for _, id := range ids {
				lease := next(t, reader)
				require.Equal(t, id, lease.ID)
				require.Equal(t, 1, lease.ReadCount)
				queue, msg, ok := pgmq.MessageFromContext(lease.Context())
				require.True(t, ok)
				require.Equal(t, "work", queue)
				require.Equal(t, lease.Message, msg)
				lease.Ack()
				lease.Nack(0) // too late to count
				require.Error(t, lease.Context().Err())
			}
			require.NoError(t, reader.Close(t.Context()))
			require.Zero(t, length(t, db))
			var archived int
			require.NoError(t, db.QueryRow(t.Context(), `select count(*) from pgmq.a_work`).Scan(&archived))
			require.Equal(t, map[bool]int{true: 100, false: 0}[archive], archived)
		})
	}
}

// database/sql cannot listen, so it polls.
func TestReader_OnDatabaseSQL(t *testing.T) {
	t.Parallel()
	db := workQueue(t)
	std := stdlib.OpenDBFromPool(db)
	reader, err := pgmq.NewStd(std).NewReader(t.Context(), "work", pgmq.ReaderConfig{Concurrency: 4})
	require.NoError(t, err)
	for range 3 { // the first are found by polling, the others are there
		send(t, db, "", 50)
		for range 50 {
			next(t, reader).Ack()
		}
	}
	require.NoError(t, reader.Close(t.Context()))
	require.Zero(t, length(t, db))
	require.NoError(t, std.Close())
}

func TestNewReader_FindsOutWhatIsMissing(t *testing.T) {
	t.Parallel()
	db := workQueue(t)
	_, err := pgmq.New(db).NewReader(t.Context(), "nope", pgmq.ReaderConfig{})
	require.ErrorIs(t, err, pgmq.ErrQueueNotFound)
	_, err = db.Exec(t.Context(), `alter table pgmq.q_work drop column last_read_at`)
	require.NoError(t, err)
	_, err = pgmq.New(db).NewReader(t.Context(), "work", pgmq.ReaderConfig{})
	require.ErrorIs(t, err, pgmq.ErrUnsupported)
	require.ErrorContains(t, err, "PGMQ 1.10")
}

// errorHandler passes on the errors that are logged.
type errorHandler struct{ errs chan<- error }

func (h errorHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h errorHandler) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h errorHandler) WithGroup(string) slog.Handler            { return h }

func (h errorHandler) Handle(_ context.Context, record slog.Record) error {
	record.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok {
			select {
			case h.errs <- err:
			default:
			}
		}
		return true
	})
	return nil
}

func TestReader_NackDelaysAndReleaseDoesNotCount(t *testing.T) {
	t.Parallel()
	db := workQueue(t)
	send(t, db, "", 1)
	reader := newReader(t, db, pgmq.ReaderConfig{})
	lease := next(t, reader)
	lease.Release()
	lease = next(t, reader)
	require.Equal(t, 1, lease.ReadCount)
	lease.Nack(0)
	lease = next(t, reader)
	require.Equal(t, 2, lease.ReadCount)
	nacked := time.Now()
	lease.Nack(500 * time.Millisecond)
	lease = next(t, reader)
	require.GreaterOrEqual(t, time.Since(nacked), 500*time.Millisecond)
	require.Equal(t, 3, lease.ReadCount)
	lease.Ack()
}

func TestReader_ClosedGivesEverythingBack(t *testing.T) {
	t.Parallel()
	for _, grouped := range []bool{false, true} {
		t.Run(fmt.Sprintf("grouped=%t", grouped), func(t *testing.T) {
			t.Parallel()
			db := workQueue(t)
			send(t, db, "", 20)
			first := newReader(t, db, pgmq.ReaderConfig{VisibilityTimeout: never, Grouped: grouped})
			for range 5 { // a pace at which it holds several
				next(t, first).Ack()
			}
			held := next(t, first)
			closing, cancel := context.WithCancel(t.Context())
			cancel()
			require.NoError(t, first.Close(closing))
			require.ErrorIs(t, context.Cause(held.Context()), pgmq.ErrReaderClosed)
			_, err := first.Next(t.Context())
			require.ErrorIs(t, err, pgmq.ErrReaderClosed)

			second := newReader(t, db, pgmq.ReaderConfig{VisibilityTimeout: never, Grouped: grouped})
			lease := next(t, second)
			require.Equal(t, held.ID, lease.ID)
			require.Equal(t, 2, lease.ReadCount, "it was handed out")
			lease.Ack()
			for range 14 {
				lease := next(t, second)
				require.Equal(t, 1, lease.ReadCount, "it was not handed out before")
				lease.Ack()
			}
		})
	}
}

func TestReader_Grouped_HoldsBackItsGroupOnly(t *testing.T) {
	t.Parallel()
	db := workQueue(t)
	a := send(t, db, "a", 3)
	b := send(t, db, "b", 1, pgmq.VisibleIn(time.Second))
	b = append(b, send(t, db, "b", 1)...)
	c := send(t, db, "c", 2)
	sent := time.Now()
	reader := newReader(t, db, pgmq.ReaderConfig{Grouped: true, Concurrency: 10})

	// One of each group whose head is visible; b waits for its delayed head.
	first := map[int64]*pgmq.Lease{}
	for range 2 {
		lease := next(t, reader)
		first[lease.ID] = lease
	}
	require.Contains(t, first, a[0])
	require.Contains(t, first, c[0])
	requireNone(t, reader)

	// A nacked message holds back its group; the other one goes on.
	nacked := time.Now()
	first[a[0]].Nack(700 * time.Millisecond)
	first[c[0]].Ack()
	lease := next(t, reader)
	require.Equal(t, c[1], lease.ID)
	lease.Ack()
	order := []int64{}
	for range 5 {
		lease := next(t, reader)
		order = append(order, lease.ID)
		switch lease.ID {
		case a[0]:
			require.GreaterOrEqual(t, time.Since(nacked), 700*time.Millisecond)
		case b[0]:
			require.GreaterOrEqual(t, time.Since(sent), 900*time.Millisecond)
		}
		lease.Ack()
	}
	require.Subset(t, order, append(a, b...))
	requireInOrder(t, order, a)
	requireInOrder(t, order, b)
}

func requireInOrder(t *testing.T, order, of []int64) {
	t.Helper()
	var found []int64
	for _, id := range order {
		for _, want := range of {
			if id == want {
				found = append(found, id)
			}
		}
	}
	require.Equal(t, of, found)
}

// Many messages of one group are held for later, while its handler hangs. They keep no other group waiting.
func TestReader_Grouped_AHungGroupKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	db := workQueue(t)
	send(t, db, "hangs", 200)
	reader := newReader(t, db, pgmq.ReaderConfig{Grouped: true, Concurrency: 10, Buffer: 10})
	for range 100 { // until it takes many at once
		next(t, reader).Ack()
	}
	hung := next(t, reader)
	for i := range 30 {
		send(t, db, fmt.Sprint("other ", i), 1)
		lease := next(t, reader)
		require.Greater(t, lease.ID, hung.ID+90)
		lease.Ack()
	}
	hung.Ack()
}

func TestReader_Grouped_IsFair(t *testing.T) {
	t.Parallel()
	db := workQueue(t)
	send(t, db, "large", 5000)
	small := send(t, db, "small", 2)
	reader := newReader(t, db, pgmq.ReaderConfig{Grouped: true})
	handled := 0
	for left := len(small); left > 0; handled++ {
		lease := next(t, reader)
		if lease.ID == small[0] || lease.ID == small[1] {
			left--
		}
		lease.Ack()
	}
	require.Less(t, handled, 500, "the small group waited for the large one")
}

// Readers that come and go share the groups, and hand every message out only when all before it in its
// group are done.
func TestReader_Grouped_OrderHoldsAcrossReaders(t *testing.T) {
	t.Parallel()
	const groups, each, readers = 40, 25, 4
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	db := workQueue(t)
	for g := range groups {
		send(t, db, fmt.Sprintf("group %d", g), each)
	}
	check := &orderCheck{done: map[string]int{}, left: groups * each, all: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var joined sync.WaitGroup
	for i := range readers {
		joined.Go(func() {
			dice := rand.New(rand.NewPCG(seed, uint64(i)))
			for ctx.Err() == nil {
				check.work(ctx, t, db, dice)
			}
		})
	}
	select {
	case <-check.all:
	case <-time.After(2 * time.Minute):
		t.Errorf("%d messages are left", check.left)
	}
	cancel()
	joined.Wait()
	require.Empty(t, check.violations)
	require.Zero(t, length(t, db))
}

type orderCheck struct {
	mu         sync.Mutex
	done       map[string]int // how many of a group are acked
	left       int
	all        chan struct{}
	violations []string
}

// work is the life of one reader, which ends after some messages.
func (c *orderCheck) work(ctx context.Context, t *testing.T, db *pgxpool.Pool, dice *rand.Rand) {
	reader, err := pgmq.New(db).NewReader(ctx, "work", pgmq.ReaderConfig{Grouped: true, Concurrency: 8})
	if err != nil {
		return // ctx has ended
	}
	for range dice.IntN(200) {
		lease, err := reader.Next(ctx)
		if err != nil {
			break
		}
		switch what := dice.IntN(20); what {
		case 0:
			lease.Nack(time.Duration(dice.IntN(20)) * time.Millisecond)
		case 1:
			lease.Release()
		default:
			c.ack(lease)
		}
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := reader.Close(ended); err != nil {
		t.Error(err)
	}
}

func (c *orderCheck) ack(lease *pgmq.Lease) {
	var headers struct {
		Group string `json:"x-pgmq-group"`
	}
	var number int
	if json.Unmarshal(lease.Headers, &headers) != nil || json.Unmarshal(lease.Body, &number) != nil {
		panic("not one of ours")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if number != c.done[headers.Group]+1 {
		c.violations = append(c.violations, fmt.Sprintf("%s: %d after %d", headers.Group, number, c.done[headers.Group]))
	}
	c.done[headers.Group] = number
	lease.Ack()
	c.left--
	if c.left == 0 {
		close(c.all)
	}
}

func TestPrepareGroups_OnAFilledQueueByMany(t *testing.T) {
	t.Parallel()
	db := workQueue(t)
	send(t, db, "a", 1000)
	var joined sync.WaitGroup
	for range 5 {
		joined.Go(func() {
			if err := pgmq.New(db).PrepareGroups(t.Context(), "work"); err != nil {
				t.Error(err)
			}
		})
	}
	joined.Wait()
	var valid int
	require.NoError(t, db.QueryRow(t.Context(), `
		select count(*) from pg_index where indrelid = 'pgmq.q_work'::regclass and indisvalid and indnatts = 2`).Scan(&valid))
	require.Equal(t, 1, valid)
	require.ErrorIs(t, pgmq.New(db).PrepareGroups(t.Context(), "nope"), pgmq.ErrQueueNotFound)
}

func TestNewReader_RefusesWhatItCannotUse(t *testing.T) {
	t.Parallel()
	db := pgmqtest.New(t).Pool
	for field, cfg := range map[string]pgmq.ReaderConfig{
		"Concurrency":       {Concurrency: -1},
		"Buffer":            {Concurrency: 10, Buffer: 9},
		"VisibilityTimeout": {VisibilityTimeout: time.Second - 1},
	} {
		_, err := pgmq.New(db).NewReader(t.Context(), "work", cfg)
		var value *pgmq.ValueError
		require.ErrorAs(t, err, &value)
		require.Equal(t, field, value.Name)
	}
	_, err := pgmq.New(db).NewReader(t.Context(), "a$b", pgmq.ReaderConfig{})
	require.ErrorIs(t, err, pgmq.ErrInvalidQueueName)
	_, err = pgmq.New(nil).NewReader(t.Context(), "work", pgmq.ReaderConfig{})
	require.ErrorIs(t, err, pgmq.ErrNilDB)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = pgmq.New(db).NewReader(ended, "work", pgmq.ReaderConfig{})
	require.ErrorIs(t, err, context.Canceled)
}

// What a slow reader gives back, because somebody else could handle it, is not overtaken by what it reads
// next: with one reader, messages stay in order.
func TestReader_GivesBackWithoutChangingTheOrder(t *testing.T) {
	t.Parallel()
	db := workQueue(t)
	ids := send(t, db, "", 40)
	reader := newReader(t, db, pgmq.ReaderConfig{})
	for i, id := range ids {
		lease := next(t, reader)
		require.Equal(t, id, lease.ID)
		if i == 20 { // it holds more than this one by now, and gives it back in this time
			require.Eventually(t, func() bool { return hidden(t, db) == 1 }, soon, 10*time.Millisecond)
		}
		lease.Ack()
	}
}

// hidden counts the messages that somebody holds.
func hidden(t *testing.T, db *pgxpool.Pool) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRow(t.Context(), `select count(*) from pgmq.q_work where vt > clock_timestamp()`).Scan(&n))
	return n
}
