package pgmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// ReaderConfig configures a Reader. The zero value is a reader for one message at a time.
type ReaderConfig struct {
	// Concurrency is how many leases Next hands out before one of them has to be settled. Default: 1.
	Concurrency int
	// Buffer bounds how many messages the reader holds: handed out, waiting to be, and waiting for
	// their settlement to be committed. It takes fewer where they are handled slowly, never more than
	// are settled in about a second. Default: 1000, or Concurrency if that is more. At least
	// Concurrency.
	Buffer int
	// VisibilityTimeout is how long messages stay hidden from others after their reader has died. A
	// living reader extends it for as long as a lease is held. Default: 30 s. At least 1 s.
	VisibilityTimeout time.Duration
	// Grouped respects FIFO groups (GroupHeader; messages without it share one): of a group, one message
	// at a time is handed out, in the order of ids, the next one when the one before is deleted or
	// archived. One that is hidden, because it was nacked or delayed or somebody else has it, holds back
	// its group and no other. Groups take turns. Default: false.
	Grouped bool
	// Archive makes Ack move messages into the queue's archive. Default: false, they are deleted.
	Archive bool
	// Watcher wakes the reader; it is shared by many and closed by whoever made it. Default: one of
	// the reader's own.
	Watcher *Watcher
	// Logger hears of lost connections and lost leases. Default: silence.
	Logger *slog.Logger
}

const (
	defaultBuffer            = 1000
	defaultVisibilityTimeout = 30 * time.Second
	// retryMost bounds the wait between two attempts of the same statement.
	retryMost = 5 * time.Second
	// settleGrace is how long Close goes on trying to settle, after its context has ended.
	settleGrace = 5 * time.Second
	// cancelGrace is how long Close waits for holders of leases to notice that their contexts ended.
	cancelGrace = time.Second
)

func (cfg ReaderConfig) withDefaults() ReaderConfig {
	if cfg.Concurrency == 0 {
		cfg.Concurrency = 1
	}
	if cfg.Buffer == 0 {
		cfg.Buffer = max(defaultBuffer, cfg.Concurrency)
	}
	if cfg.VisibilityTimeout == 0 {
		cfg.VisibilityTimeout = defaultVisibilityTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg
}

// Validate returns a *ValueError that names the first field with an invalid value. Zero values are
// valid: they mean the default.
func (cfg ReaderConfig) Validate() error {
	cfg = cfg.withDefaults()
	switch {
	case cfg.Concurrency < 1:
		return &ValueError{Name: "Concurrency", Value: cfg.Concurrency, Rule: "at least 1, or 0 for the default"}
	case cfg.Buffer < cfg.Concurrency:
		return &ValueError{Name: "Buffer", Value: cfg.Buffer, Rule: fmt.Sprintf("at least Concurrency (%d), or 0 for the default", cfg.Concurrency)}
	case cfg.VisibilityTimeout < time.Second:
		return &ValueError{Name: "VisibilityTimeout", Value: cfg.VisibilityTimeout, Rule: "at least 1s, or 0 for the default"}
	}
	return nil
}

// Reader takes messages of one queue in batches, hands them out one by one, keeps their leases alive,
// and settles them in batches. It is what a worker needs:
//
//	for {
//		lease, err := reader.Next(ctx)
//		if err != nil {
//			break
//		}
//		if err := handle(lease.Context(), lease.Message); err != nil {
//			lease.Nack(time.Second)
//			continue
//		}
//		lease.Ack()
//	}
//
// It holds neither a connection nor a transaction while a message is being handled. When the
// connection is lost it goes on when there is one again; what was acked in between is settled then.
type Reader struct {
	cfg      ReaderConfig
	leasing  leasing
	grouping grouping // of a grouped reader; only take uses it
	log      *slog.Logger
	watch    *watch
	own      *Watcher        // nil: the watcher is somebody else's
	base     context.Context // the values that leases see
	life     context.Context // of the statements: ends after everything is settled, or never will be
	end      context.CancelFunc
	unbind   func() bool // from the context given to NewReader

	stop     chan struct{} // closed: nothing is taken or handed out any more
	stopOnce sync.Once
	closing  sync.Once
	closed   chan struct{} // closed: Close is done, with closeErr
	closeErr error
	taking   sync.WaitGroup // the goroutine that takes
	keeping  sync.WaitGroup // the goroutines that keep and settle
	drained  chan struct{}  // closed: settle what is pending and end

	// Each of these holds one signal: there may be ...
	ready     chan struct{} // something to hand out
	room      chan struct{} // room to take more
	pending   chan struct{} // something to settle
	nacks     chan struct{} // an earlier retry than before
	idle      chan struct{} // nothing handed out any more
	unindexed chan struct{} // no index on the groups any more

	mu        sync.Mutex
	shelf     shelf // taken but not handed out
	out       map[*Lease]struct{}
	unmade    settlements // asked for, not yet under way
	settling  int         // asked for, not yet committed
	releasing int         // those of them that release
	pace      pace
	retries   instants // when messages that were nacked here become visible
}

// NewReader starts a reader of a queue. The values of ctx are visible in the leases' contexts; when it
// ends, Next returns ErrReaderClosed. Close gives back what is held, and must be called.
//
// The client's handle must be a *pgxpool.Pool or a *sql.DB, which cannot listen, so that the reader
// polls. On a *sql.DB of pgx, let statements be planned each time (in the connection string:
// default_query_exec_mode=exec): a plan from when the queue was empty is a bad one when it is full.
//
// It needs PGMQ 1.10 or later (ErrUnsupported), and finds out at once when the queue (ErrQueueNotFound)
// or a right (*RightsError) is missing.
func (c *Client) NewReader(ctx context.Context, queue string, cfg ReaderConfig) (*Reader, error) {
	op := operation{"read", queue}
	listens, err := c.serves()
	if err = firstError(err, ValidateQueueName(queue), cfg.Validate(), ctx.Err()); err != nil {
		return nil, op.fail(err)
	}
	cfg = cfg.withDefaults()
	r := &Reader{
		cfg:       cfg,
		leasing:   leasing{client: c, queue: queue, vt: cfg.VisibilityTimeout, archive: cfg.Archive},
		log:       cfg.Logger.With("queue", queue),
		base:      context.WithoutCancel(ctx),
		stop:      make(chan struct{}),
		closed:    make(chan struct{}),
		drained:   make(chan struct{}),
		ready:     make(chan struct{}, 1),
		room:      make(chan struct{}, 1),
		pending:   make(chan struct{}, 1),
		nacks:     make(chan struct{}, 1),
		idle:      make(chan struct{}, 1),
		unindexed: make(chan struct{}, 1),
		out:       map[*Lease]struct{}{},
	}
	r.shelf = &plainShelf{}
	if cfg.Grouped {
		r.shelf = newGroupShelf()
		r.grouping.leasing, r.grouping.depth = &r.leasing, 1
	}
	if err := r.leasing.probe(ctx); err != nil {
		return nil, err
	}
	watcher := cfg.Watcher
	if watcher == nil {
		if r.own, err = c.NewWatcher(WatcherConfig{Logger: cfg.Logger, DisableListen: !listens}); err != nil {
			return nil, err
		}
		watcher = r.own
	}
	r.watch = watcher.watch(queue)
	r.life, r.end = context.WithCancel(context.Background())
	r.taking.Go(r.take)
	if cfg.Grouped {
		r.taking.Go(r.prepare)
	}
	r.keeping.Go(r.keep)
	r.keeping.Go(r.settleAll)
	r.unbind = context.AfterFunc(ctx, r.Stop)
	return r, nil
}

// Next waits for a message and hands it out, while fewer than Concurrency leases are held. It returns
// ErrReaderClosed after Stop or Close, or ctx's error. It is safe for concurrent use.
func (r *Reader) Next(ctx context.Context) (*Lease, error) {
	for {
		select {
		case <-r.stop:
			return nil, ErrReaderClosed
		default:
		}
		if lease := r.handOut(); lease != nil {
			return lease, nil
		}
		select {
		case <-r.ready:
		case <-r.stop:
			return nil, ErrReaderClosed
		case <-ctx.Done():
			signal(r.ready) // it may have been meant for another caller
			return nil, context.Cause(ctx)
		}
	}
}

// Stop ends taking and handing out, and returns at once. Leases that are held can still be settled.
func (r *Reader) Stop() {
	r.stopOnce.Do(func() { close(r.stop) })
}

// Stopped is closed when the reader was stopped: by Stop, by Close, or by the end of its context.
func (r *Reader) Stopped() <-chan struct{} { return r.stop }

// Close stops the reader, gives back at once what it holds but has not handed out, and waits until
// all leases are settled or ctx has ended. Then it ends the contexts of the leases that are left,
// gives those back too, and returns when everything is committed. Several calls are one.
//
// An error says that the database could not be reached for so long that something stayed unsettled;
// it will be visible again when its visibility timeout is over.
func (r *Reader) Close(ctx context.Context) error {
	r.Stop()
	r.closing.Do(func() {
		defer close(r.closed)
		r.closeErr = r.close(ctx)
	})
	<-r.closed
	return r.closeErr
}

func (r *Reader) close(ctx context.Context) error {
	// A statement under way is not cancelled: a read may have committed, and messages that nobody
	// knows of would stay hidden. Where no answer comes, ctx and then the grace bound the wait.
	tooLong := time.AfterFunc(math.MaxInt64, r.end)
	defer tooLong.Stop()
	defer context.AfterFunc(ctx, func() { tooLong.Reset(settleGrace) })()

	r.taking.Wait()
	r.giveBack(0)
	r.awaitHolders(ctx)
	close(r.drained)
	r.keeping.Wait()

	r.end()
	r.unbind()
	r.watch.stop()
	if r.own != nil {
		r.own.Close()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.settling > 0 {
		return operation{"settle", r.leasing.queue}.fail(fmt.Errorf("%w: %d messages", ErrUnsettled, r.settling))
	}
	return nil
}

// awaitHolders waits until every lease is settled. When ctx ends first it ends the leases' contexts,
// which lets holders settle what they have an answer for, and then gives back the rest.
func (r *Reader) awaitHolders(ctx context.Context) {
	if r.awaitIdle(ctx) {
		return
	}
	for _, lease := range r.held() {
		lease.cancel(ErrReaderClosed)
	}
	grace, cancel := context.WithTimeout(context.Background(), cancelGrace)
	defer cancel()
	if r.awaitIdle(grace) {
		return
	}
	for _, lease := range r.held() {
		lease.Nack(0)
	}
}

// held returns the leases that are handed out.
func (r *Reader) held() []*Lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	held := make([]*Lease, 0, len(r.out))
	for lease := range r.out {
		held = append(held, lease)
	}
	return held
}

// awaitIdle waits until no lease is handed out; false means that ctx ended before.
func (r *Reader) awaitIdle(ctx context.Context) bool {
	for {
		r.mu.Lock()
		n := len(r.out)
		r.mu.Unlock()
		if n == 0 {
			return true
		}
		select {
		case <-r.idle:
		case <-ctx.Done():
			return false
		}
	}
}

// signal leaves a signal in a channel that holds one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// newRetry is the wait between attempts at the same statement: it grows, with jitter.
func newRetry() *backoff.ExponentialBackOff {
	retry := backoff.NewExponentialBackOff()
	retry.InitialInterval = 50 * time.Millisecond
	retry.MaxInterval = retryMost
	return retry
}

// isGone says that the queue does not exist, so that trying again is of no use for what was in it.
func isGone(err error) bool {
	return errors.Is(err, ErrQueueNotFound) || errors.Is(err, ErrNotInstalled)
}
