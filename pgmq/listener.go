package pgmq

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Channel is the name on which a NOTIFY says that a queue has new messages. Listen to it quoted:
// LISTEN "pgmq.q_orders.INSERT".
func Channel(queue string) string { return "pgmq.q_" + strings.ToLower(queue) + ".INSERT" }

const (
	// listenCheck is how long a connection may say nothing before it is asked whether it lives.
	listenCheck = 30 * time.Second
	// listenRetryMost bounds the wait between two attempts to connect.
	listenRetryMost = 30 * time.Second
)

// listener hears notifications on any number of channels over one connection of its own.
type listener struct {
	connect func(context.Context) (*pgx.Conn, error)
	heard   func(channel string)
	log     *slog.Logger

	mu        sync.Mutex
	wanted    map[string]struct{}
	interrupt context.CancelFunc // ends the current wait for a notification
}

func newListener(pool *pgxpool.Pool, heard func(channel string), log *slog.Logger) *listener {
	return &listener{
		connect:   func(ctx context.Context) (*pgx.Conn, error) { return connectLike(ctx, pool) },
		heard:     heard,
		log:       log,
		wanted:    map[string]struct{}{},
		interrupt: func() {},
	}
}

// connectLike opens a connection as pool would, but outside of it: one that listens is held for
// good, and would be missing from a small pool.
func connectLike(ctx context.Context, pool *pgxpool.Pool) (*pgx.Conn, error) {
	config := pool.Config()
	conn := config.ConnConfig
	if config.BeforeConnect != nil {
		if err := config.BeforeConnect(ctx, conn); err != nil {
			return nil, err
		}
	}
	return pgx.ConnectConfig(ctx, conn)
}

// want adds or removes a channel, soon.
func (l *listener) want(channel string, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if yes {
		l.wanted[channel] = struct{}{}
	} else {
		delete(l.wanted, channel)
	}
	l.interrupt()
}

// run listens until ctx ends, and connects again whenever the connection is lost.
func (l *listener) run(ctx context.Context) {
	retry := backoff.NewExponentialBackOff()
	retry.MaxInterval = listenRetryMost
	for ctx.Err() == nil {
		err := l.session(ctx, retry.Reset)
		if ctx.Err() != nil {
			return
		}
		wait := retry.NextBackOff()
		l.log.WarnContext(ctx, "no notifications, polling instead", "error", err, "retry_in", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// session listens over one connection until that is lost.
func (l *listener) session(ctx context.Context, connected func()) error {
	conn, err := l.connect(ctx)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing) // it is given up either way
	}()
	connected()

	listening := map[string]struct{}{}
	for {
		wait, cancel := context.WithTimeout(ctx, listenCheck)
		// What is wanted is read together with arming interrupt: a channel that is added later ends
		// the wait, even before it has begun.
		start, stop := l.changes(listening, cancel)
		err := l.update(ctx, conn, listening, start, stop)
		if err == nil {
			err = l.hear(ctx, wait, conn)
		}
		cancel()
		if err != nil {
			return err
		}
	}
}

func (l *listener) changes(listening map[string]struct{}, interrupt context.CancelFunc) (start, stop []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.interrupt = interrupt
	for channel := range l.wanted {
		if _, ok := listening[channel]; !ok {
			start = append(start, channel)
		}
	}
	for channel := range listening {
		if _, ok := l.wanted[channel]; !ok {
			stop = append(stop, channel)
		}
	}
	return start, stop
}

func (l *listener) update(ctx context.Context, conn *pgx.Conn, listening map[string]struct{}, start, stop []string) error {
	for _, channel := range start {
		if _, err := conn.Exec(ctx, "listen "+pgx.Identifier{channel}.Sanitize()); err != nil {
			return err
		}
		listening[channel] = struct{}{}
		// What was sent before the LISTEN took hold was not announced to us.
		l.heard(channel)
	}
	for _, channel := range stop {
		if _, err := conn.Exec(ctx, "unlisten "+pgx.Identifier{channel}.Sanitize()); err != nil {
			return err
		}
		delete(listening, channel)
	}
	return nil
}

// hear waits for one notification, until wait ends. A connection that stays silent is asked whether
// it is still there: a peer that vanished sends nothing, not even an error.
func (l *listener) hear(ctx, wait context.Context, conn *pgx.Conn) error {
	n, err := conn.WaitForNotification(wait)
	switch {
	case err == nil:
		l.heard(n.Channel)
		return nil
	case wait.Err() == context.DeadlineExceeded && ctx.Err() == nil: //nolint:errorlint // Context.Err is documented to return the value itself
		ping, cancel := context.WithTimeout(ctx, listenCheck)
		defer cancel()
		return conn.Ping(ping)
	case wait.Err() != nil && ctx.Err() == nil:
		return nil // interrupted
	}
	return err
}
