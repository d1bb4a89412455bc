package pgmq

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
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

// channels are those on which notifications of a queue can come: since PGMQ 1.13.1 the name in it is the
// one that the queue was created with.
func channels(queue string) []string {
	if exact := "pgmq.q_" + queue + ".INSERT"; exact != Channel(queue) {
		return []string{Channel(queue), exact}
	}
	return []string{Channel(queue)}
}

// ErrNotNotified says that a Listener is connected, but that notifications do not arrive: most likely it
// is behind a PgBouncer in transaction mode.
var ErrNotNotified = errors.New("notifications do not arrive")

const (
	// listenCheck is how long a connection may say nothing before it is asked whether it lives.
	listenCheck = 30 * time.Second
	// listenProof is how long a notification to oneself may take.
	listenProof = 5 * time.Second
	// listenRetryMost bounds the wait between two attempts to connect.
	listenRetryMost = 30 * time.Second
)

// Listener hears of new messages in any number of queues, over one connection of its own, which is opened
// as the pool opens its connections but does not count as one of them. Senders notify when the queue has
// EnableNotify, and a Shipment with Notify does. When the connection is lost the Listener connects again.
//
// A notification says that it is worth looking, not how many messages there are; several can be one, and
// each (re)connect counts as one for every queue, because what was sent before was not heard.
type Listener struct {
	client  *Client
	connect func(context.Context) (*pgx.Conn, error)
	log     *slog.Logger
	proof   string // the channel of notifications to itself
	end     context.CancelFunc
	ended   <-chan struct{}
	joined  sync.WaitGroup

	mu        sync.Mutex
	wakes     map[string]map[*ear]struct{} // by channel
	interrupt context.CancelFunc           // ends the current wait for a notification
	health    error
}

// ear is one who wants to hear of one queue.
type ear struct{ wake func() }

// NewListener starts a Listener, which ends with ctx or Close. The client's handle must be a
// *pgxpool.Pool. A nil logger is silence.
func (c *Client) NewListener(ctx context.Context, logger *slog.Logger) (*Listener, error) {
	pool, err := c.pool()
	if err = firstError(err, ctx.Err()); err != nil {
		return nil, operation{name: "listen"}.fail(err)
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	l := &Listener{
		client:    c,
		connect:   func(ctx context.Context) (*pgx.Conn, error) { return connectLike(ctx, pool) },
		log:       logger,
		proof:     "pgmq.listener." + rand.Text(),
		wakes:     map[string]map[*ear]struct{}{},
		interrupt: func() {},
		health:    errors.New("not connected yet"),
	}
	ctx, l.end = context.WithCancel(ctx)
	l.ended = ctx.Done()
	l.joined.Go(func() { l.run(ctx) })
	return l, nil
}

// connectLike opens a connection as pool would, but outside of it: one that listens is held for good,
// and would be missing from a small pool.
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

// Listen returns a channel that gets a value when the queue may have new messages, also right after
// LISTEN has taken effect. It holds one value; those that nobody has taken are one. It falls silent when
// ctx or the Listener ends, and is never closed.
func (l *Listener) Listen(ctx context.Context, queue string) (<-chan struct{}, error) {
	woken := make(chan struct{}, 1)
	if err := l.listen(ctx, queue, func() { signal(woken) }); err != nil {
		return nil, err
	}
	return woken, nil
}

// ListenFunc calls f when the queue may have new messages, once at a time, until ctx or the Listener
// ends. Close waits for the last call.
func (l *Listener) ListenFunc(ctx context.Context, queue string, f func(context.Context)) error {
	woken, err := l.Listen(ctx, queue)
	if err != nil {
		return err
	}
	l.joined.Go(func() {
		for {
			select {
			case <-woken:
				f(ctx)
			case <-ctx.Done():
				return
			case <-l.ended:
				return
			}
		}
	})
	return nil
}

// Healthy returns nil while the Listener is connected and has heard a notification of its own, else what
// is wrong: ErrNotNotified, or why it is not connected.
func (l *Listener) Healthy() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.health
}

// Close ends listening, closes the connection, and waits for what is under way.
func (l *Listener) Close() {
	l.end()
	l.joined.Wait()
}

func (l *Listener) listen(ctx context.Context, queue string, wake func()) error {
	if err := firstError(ValidateQueueName(queue), ctx.Err()); err != nil {
		return operation{"listen", queue}.fail(err)
	}
	stop := l.add(queue, wake)
	context.AfterFunc(ctx, stop)
	return nil
}

// add wakes somebody for a queue until stop is called.
func (l *Listener) add(queue string, wake func()) (stop func()) {
	e := &ear{wake: wake}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, channel := range channels(queue) {
		if l.wakes[channel] == nil {
			l.wakes[channel] = map[*ear]struct{}{}
		}
		l.wakes[channel][e] = struct{}{}
	}
	l.interrupt()
	return func() { l.remove(queue, e) }
}

func (l *Listener) remove(queue string, e *ear) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, channel := range channels(queue) {
		delete(l.wakes[channel], e)
		if len(l.wakes[channel]) == 0 {
			delete(l.wakes, channel)
		}
	}
	l.interrupt()
}

func (l *Listener) heard(channel string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for e := range l.wakes[channel] {
		e.wake()
	}
}

func (l *Listener) run(ctx context.Context) {
	retry := backoff.NewExponentialBackOff()
	retry.MaxInterval = listenRetryMost
	for ctx.Err() == nil {
		err := l.session(ctx, retry.Reset)
		l.unhealthy(err)
		if ctx.Err() != nil {
			return
		}
		wait := retry.NextBackOff()
		l.log.WarnContext(ctx, "cannot listen, trying again", "error", err, "retry_in", wait)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (l *Listener) unhealthy(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.health = err
}

// session listens over one connection until that is lost.
func (l *Listener) session(ctx context.Context, connected func()) error {
	conn, err := l.connect(ctx)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing) // it is given up either way
	}()
	if err := command(ctx, conn, "listen", l.proof); err != nil {
		return err
	}
	connected()
	l.unhealthy(ErrNotNotified)
	proven := make(chan struct{})
	go func() {
		defer close(proven)
		l.prove(ctx)
	}()
	defer func() { <-proven }()

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

// prove notifies the Listener from another connection, and complains if that is not heard. A pooler that
// gives LISTEN a connection which it takes away afterwards looks healthy otherwise.
func (l *Listener) prove(ctx context.Context) {
	limit, cancel := context.WithTimeout(ctx, listenProof)
	defer cancel()
	heard := make(chan struct{}, 1)
	e := &ear{wake: func() { signal(heard) }}
	l.mu.Lock()
	l.wakes[l.proof] = map[*ear]struct{}{e: {}}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.wakes, l.proof)
	}()

	if err := exec(limit, l.client, operation{name: "notify"}, `select pg_notify($1::text, '')`, l.proof); err != nil {
		l.log.DebugContext(ctx, "cannot test whether notifications arrive", "error", err)
		return
	}
	select {
	case <-heard:
	case <-limit.Done():
		if ctx.Err() == nil {
			l.log.WarnContext(ctx, "notifications do not arrive: is there a PgBouncer in transaction mode? Polling finds the messages, later",
				"error", ErrNotNotified)
		}
	}
}

// changes says which channels to begin and to end listening to.
func (l *Listener) changes(listening map[string]struct{}, interrupt context.CancelFunc) (start, stop []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.interrupt = interrupt
	for channel := range l.wakes {
		if _, ok := listening[channel]; !ok && channel != l.proof {
			start = append(start, channel)
		}
	}
	for channel := range listening {
		if _, ok := l.wakes[channel]; !ok {
			stop = append(stop, channel)
		}
	}
	return start, stop
}

func (l *Listener) update(ctx context.Context, conn *pgx.Conn, listening map[string]struct{}, start, stop []string) error {
	for _, channel := range start {
		if err := command(ctx, conn, "listen", channel); err != nil {
			return err
		}
		listening[channel] = struct{}{}
		// What was sent before the LISTEN took effect was not announced to us.
		l.heard(channel)
	}
	for _, channel := range stop {
		if err := command(ctx, conn, "unlisten", channel); err != nil {
			return err
		}
		delete(listening, channel)
	}
	return nil
}

// command is LISTEN or UNLISTEN, on a connection that may be dead without knowing it.
func command(ctx context.Context, conn *pgx.Conn, name, channel string) error {
	ctx, cancel := context.WithTimeout(ctx, listenCheck)
	defer cancel()
	if _, err := conn.Exec(ctx, name+" "+pgx.Identifier{channel}.Sanitize()); err != nil {
		return fmt.Errorf("%s %q: %w", name, channel, err)
	}
	return nil
}

// hear waits for one notification, until wait ends. A connection that stays silent is asked whether it
// is still there: a peer that vanished sends nothing, not even an error.
func (l *Listener) hear(ctx, wait context.Context, conn *pgx.Conn) error {
	n, err := conn.WaitForNotification(wait)
	switch {
	case err == nil:
		l.unhealthy(nil) // whatever it is that was heard
		l.heard(n.Channel)
		return nil
	case ctx.Err() != nil || wait.Err() == nil:
		return err
	case errors.Is(wait.Err(), context.DeadlineExceeded):
		ping, cancel := context.WithTimeout(ctx, listenCheck)
		defer cancel()
		return conn.Ping(ping)
	}
	return nil // interrupted
}
