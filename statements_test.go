package watermillpgmq_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	watermillpgmq "github.com/watermill-pgmq/watermill-pgmq"
)

// statements counts what is sent over the connections that it traces.
type statements struct{ all, listens atomic.Int64 }

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	s.all.Add(1)
	if strings.HasPrefix(strings.ToLower(data.SQL), "listen ") {
		s.listens.Add(1)
	}
	return ctx
}

func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// traced is a pool of its own whose statements are counted, those of listening connections too.
func traced(t testing.TB, db *pgxpool.Pool) (*pgxpool.Pool, *statements) {
	t.Helper()
	sent := new(statements)
	return poolLike(t, db, func(cfg *pgxpool.Config) { cfg.ConnConfig.Tracer = sent }), sent
}

// awaitQuiet waits until a quarter of a second has passed with one statement at most.
func (s *statements) awaitQuiet(t testing.TB) {
	t.Helper()
	before, tick := s.all.Load(), time.NewTicker(250*time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); ; {
		select {
		case <-tick.C:
		case <-deadline:
			require.FailNow(t, "the subscriptions never become idle")
		}
		now := s.all.Load()
		if now-before <= 1 {
			return
		}
		before = now
	}
}

// subscribeIdly returns when the subscriber listens, has looked for messages, and does nothing any more.
func subscribeIdly(t testing.TB, db *pgxpool.Pool, cfg watermillpgmq.SubscriberConfig, topic string) <-chan *message.Message {
	t.Helper()
	pool, sent := traced(t, db)
	messages := subscribe(t, newSubscriber(t, pool, cfg), topic)
	sent.awaitListens(t, 1)
	sent.awaitQuiet(t)
	return messages
}

// awaitListens waits until n channels are listened to.
func (s *statements) awaitListens(t testing.TB, n int64) {
	t.Helper()
	eventually(t, func() error {
		if listens := s.listens.Load(); listens < n {
			return fmt.Errorf("%d channels are listened to", listens)
		}
		return nil
	})
}
