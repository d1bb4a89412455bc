package pgmq

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// WatcherConfig configures a Watcher.
type WatcherConfig struct {
	// PollInterval is how often queues with idle readers are looked at, all of them by one statement.
	// It bounds how late a message is noticed whose sender does not notify, or whose notification is
	// lost. Default: 1 s. At least 1 ms.
	PollInterval time.Duration
	// DisableListen leaves out LISTEN, as behind a PgBouncer in transaction mode, where notifications
	// never arrive. Default: false.
	DisableListen bool
	// Logger hears of lost connections. Default: silence.
	Logger *slog.Logger
}

func (cfg WatcherConfig) withDefaults() WatcherConfig {
	if cfg.PollInterval == 0 {
		cfg.PollInterval = time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg
}

// Validate returns a *ValueError that names the first field with an invalid value. Zero values are
// valid: they mean the default.
func (cfg WatcherConfig) Validate() error {
	if cfg.PollInterval != 0 && cfg.PollInterval < time.Millisecond {
		return &ValueError{Name: "PollInterval", Value: cfg.PollInterval, Rule: "at least 1ms, or 0 for the default"}
	}
	return nil
}

// Watcher wakes idle readers when their queues may have messages: notified over one connection of its
// own, which is outside of the pool, and by polling, which also notices messages that become visible
// because a delay or a lease ran out. Any number of readers share one.
type Watcher struct {
	client *Client
	cfg    WatcherConfig
	listen *Listener     // nil: polling only
	idled  chan struct{} // holds one signal: a reader has become idle
	end    context.CancelFunc
	joined sync.WaitGroup

	mu      sync.Mutex
	watches map[*watch]struct{}
	round   int // counts PollIntervals
}

// NewWatcher starts a watcher; Close ends it. The client's handle must be a *pgxpool.Pool, or with
// DisableListen a *sql.DB.
func (c *Client) NewWatcher(cfg WatcherConfig) (*Watcher, error) {
	op := operation{name: "watch"}
	_, err := c.serves()
	if err = firstError(err, cfg.Validate()); err != nil {
		return nil, op.fail(err)
	}
	ctx, end := context.WithCancel(context.Background())
	w := &Watcher{client: c, cfg: cfg.withDefaults(), end: end, idled: make(chan struct{}, 1), watches: map[*watch]struct{}{}, round: 1}
	if !cfg.DisableListen {
		if w.listen, err = c.NewListener(ctx, w.cfg.Logger); err != nil {
			end()
			return nil, err
		}
	}
	w.joined.Go(func() { w.poll(ctx) })
	return w, nil
}

// pool is the handle of a client for what needs a connection of its own.
func (c *Client) pool() (*pgxpool.Pool, error) {
	if c.db == nil {
		return nil, ErrNilDB
	}
	pool, ok := c.db.raw().(*pgxpool.Pool)
	if !ok {
		return nil, fmt.Errorf("%w on a %T: it needs a *pgxpool.Pool", ErrUnsupported, c.db.raw())
	}
	return pool, nil
}

// serves says whether the handle can be used by many at once, and if so whether it can listen.
func (c *Client) serves() (listens bool, err error) {
	if c.db == nil {
		return false, ErrNilDB
	}
	switch c.db.raw().(type) {
	case *pgxpool.Pool:
		return true, nil
	case *sql.DB:
		return false, nil
	}
	return false, fmt.Errorf("%w on a %T: it needs a *pgxpool.Pool or a *sql.DB", ErrUnsupported, c.db.raw())
}

// Close stops watching and closes the connection. Readers that still use the watcher are not woken
// any more.
func (w *Watcher) Close() {
	w.end()
	if w.listen != nil {
		w.listen.Close()
	}
	w.joined.Wait()
}

// watch is one reader's interest in one queue.
type watch struct {
	watcher *Watcher
	queue   string
	woken   chan struct{} // holds one wake-up
	deafen  func()        // ends listening

	// guarded by watcher.mu
	idle  bool
	due   *time.Timer
	round int // in which it was woken last for a message that was visible
}

func (w *Watcher) watch(queue string) *watch {
	one := &watch{watcher: w, queue: strings.ToLower(queue), woken: make(chan struct{}, 1), deafen: func() {}}
	if w.listen != nil {
		one.deafen = w.listen.add(queue, one.wake)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watches[one] = struct{}{}
	return one
}

// stop ends the interest.
func (one *watch) stop() {
	one.deafen()
	w := one.watcher
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.watches, one)
	if one.due != nil {
		one.due.Stop()
	}
}

// setIdle says whether the reader waits for messages, so that its queue is polled.
func (one *watch) setIdle(idle bool) {
	one.watcher.mu.Lock()
	defer one.watcher.mu.Unlock()
	one.idle = idle
	if idle {
		signal(one.watcher.idled)
	}
}

// wake tells the reader to look. A wake-up that nobody has taken yet counts for this one too.
func (one *watch) wake() {
	signal(one.woken)
}

// forget drops a wake-up: whoever calls it looks at the queue right afterwards.
func (one *watch) forget() {
	select {
	case <-one.woken:
	default:
	}
}

// lookEvery is the shortest time between two looks, which follow whenever a reader becomes idle: its next
// message may be due before the PollInterval is over.
const lookEvery = 50 * time.Millisecond

func (w *Watcher) poll(ctx context.Context) {
	every := min(lookEvery, w.cfg.PollInterval)
	soonest := time.NewTimer(0)
	defer soonest.Stop()
	tick := time.NewTicker(w.cfg.PollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-soonest.C:
		}
		select {
		case <-ctx.Done():
			return
		case <-w.idled:
		case <-tick.C:
			w.mu.Lock()
			w.round++
			w.mu.Unlock()
		}
		w.look(ctx)
		soonest.Reset(every)
	}
}

// look asks when the first message of each queue becomes visible, if any reader is idle, and wakes
// the idle ones then.
func (w *Watcher) look(ctx context.Context) {
	queues, anyIdle := w.queues()
	if !anyIdle {
		return
	}
	limit, cancel := context.WithTimeout(ctx, max(w.cfg.PollInterval, 5*time.Second))
	defer cancel()
	dues, err := planned(limit, w.client, operation{name: "watch"}, scanDue, dueSQL(queues))
	if err != nil {
		// One missing queue fails the statement for all of them. Their readers find out themselves
		// whom it concerns, and wait before they try again.
		w.cfg.Logger.DebugContext(ctx, "polling failed, every idle reader looks for itself", "error", err)
		dues = make([]due, len(queues))
		for i := range queues {
			dues[i].Index = i
		}
	}
	for _, d := range dues {
		w.schedule(queues[d.Index], time.Duration(d.Micros)*time.Microsecond)
	}
}

func (w *Watcher) queues() (names []string, anyIdle bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for one := range w.watches {
		names = append(names, one.queue)
		anyIdle = anyIdle || one.idle
	}
	slices.Sort(names)
	return slices.Compact(names), anyIdle
}

// due says when the first message of a queue becomes visible; negative: it is.
type due struct {
	Index  int
	Micros int64
}

// dueSQL is one statement for all queues, so that any number of them cost one round trip. It stays
// the same as long as the queues do. Each queue costs one step on its index on vt.
func dueSQL(queues []string) string {
	var text strings.Builder
	for i, q := range queues {
		if i > 0 {
			text.WriteString("\nunion all\n")
		}
		fmt.Fprintf(&text, `
			select %d, ceil(extract(epoch from first.vt - clock_timestamp()) * 1000000)::bigint
			from (select vt from %s order by vt limit 1) as first`, i, table(q))
	}
	return text.String()
}

func scanDue(r row) (d due, err error) {
	err = r.Scan(&d.Index, &d.Micros)
	return d, err
}

// schedule wakes the readers of a queue when its first message becomes visible. What is further
// away than the next look is left to that.
func (w *Watcher) schedule(queue string, in time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for one := range w.watches {
		switch {
		case one.queue != queue:
		case in <= 0:
			// What is visible but cannot be taken, because somebody holds a lock on it, wakes its
			// readers once in a PollInterval.
			if one.idle && one.round != w.round {
				one.round = w.round
				one.wake()
			}
		case in <= 2*w.cfg.PollInterval: // for one that is not idle now, too
			if one.due != nil {
				one.due.Stop()
			}
			one.due = time.AfterFunc(in, one.wake)
		}
	}
}
