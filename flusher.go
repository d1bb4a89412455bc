package watermillpgmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

const (
	// flushesInFlight is how many flushes are under way at a time: while one waits for its commit,
	// another one is being executed.
	flushesInFlight = 2
	// mostPerFlush bounds the messages of a flush, and mostBytesPerFlush what is in them; a call with more
	// has one of its own.
	mostPerFlush      = 1000
	mostBytesPerFlush = 8 << 20
)

// flusher coalesces calls without delaying them: a lone call is sent at once, and while flushes are
// under way the calls that arrive gather for the next one. Each flush is one round trip and one
// transaction.
type flusher struct {
	client   *pgmq.Client
	notifier *notifier

	mu       sync.Mutex
	waiting  []*call
	inFlight int
	flushes  sync.WaitGroup
}

// call is one Publish call on its way.
type call struct {
	shipments []pgmq.Shipment
	messages  int
	bytes     int
	flush     *flush        // guarded by flusher.mu; nil: waiting
	abandoned bool          // guarded by flusher.mu: nobody waits for it any more
	done      chan struct{} // closed: queues and err are set
	queues    [][]string
	err       error
}

// flush is what is sent together.
type flush struct {
	ctx    context.Context
	cancel context.CancelFunc
	calls  []*call
	cared  int // guarded by flusher.mu: calls that somebody still waits for
}

func newFlusher(client *pgmq.Client, logger watermill.LoggerAdapter) *flusher {
	return &flusher{client: client, notifier: newNotifier(client, logger)}
}

// send returns when the shipments are committed, with the queues that each of them reached.
func (f *flusher) send(ctx context.Context, shipments []pgmq.Shipment) ([][]string, error) {
	c := &call{shipments: shipments, done: make(chan struct{})}
	for i := range shipments {
		c.messages += len(shipments[i].Messages)
		for _, msg := range shipments[i].Messages {
			c.bytes += len(msg.Body) + len(msg.Headers)
		}
	}
	f.mu.Lock()
	f.waiting = append(f.waiting, c)
	if f.inFlight < flushesInFlight {
		f.inFlight++
		f.flushes.Go(f.run)
	}
	f.mu.Unlock()

	select {
	case <-c.done:
		return c.queues, c.err
	case <-ctx.Done():
		return f.abandon(ctx, c)
	}
}

// close waits for the flushes that nobody waits for any more, and for the notifications they owe.
func (f *flusher) close() {
	f.flushes.Wait()
	f.notifier.close()
}

// abandon takes a call back whose context has ended. When all calls of a flush are abandoned the
// flush is cancelled: it may hang, and there is nobody left to care for it.
func (f *flusher) abandon(ctx context.Context, c *call) ([][]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-c.done:
		return c.queues, c.err
	default:
	}
	if c.flush == nil {
		f.waiting = slices.DeleteFunc(f.waiting, func(other *call) bool { return other == c })
		return nil, context.Cause(ctx)
	}
	c.abandoned = true
	c.flush.release()
	return nil, fmt.Errorf("%w: %w", ErrOutcomeUnknown, context.Cause(ctx))
}

// run sends flushes until no call is waiting.
func (f *flusher) run() {
	for {
		next := f.next()
		if next == nil {
			return
		}
		f.deliver(next)
		next.cancel()
	}
}

func (f *flusher) next() *flush {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, messages, bytes := 0, 0, 0
	for n < len(f.waiting) {
		messages += f.waiting[n].messages
		bytes += f.waiting[n].bytes
		if n > 0 && (messages > mostPerFlush || bytes > mostBytesPerFlush) {
			break
		}
		n++
	}
	if n == 0 {
		f.inFlight--
		return nil
	}
	next := &flush{calls: slices.Clone(f.waiting[:n]), cared: n}
	next.ctx, next.cancel = context.WithCancel(context.Background())
	for _, c := range next.calls {
		c.flush = next
	}
	f.waiting = slices.Delete(f.waiting, 0, n)
	return next
}

// deliver sends a flush and tells its calls what became of it. If something in it is refused, everything
// was rolled back, and each call is sent alone, so that only those fail which are at fault.
func (f *flusher) deliver(next *flush) {
	err := f.attempt(next.ctx, next.calls)
	if len(next.calls) > 1 && isOneCallsFault(err) {
		for _, c := range next.calls {
			f.finish(c, f.attempt(next.ctx, []*call{c}))
		}
		return
	}
	for _, c := range next.calls {
		f.finish(c, err)
	}
}

// isOneCallsFault says whether an error can be due to what is in a call, rather than to the state of the
// server or the connection, which all calls share.
func isOneCallsFault(err error) bool {
	var (
		value  *pgmq.ValueError
		name   *pgmq.NameError
		server *pgconn.PgError
	)
	if errors.As(err, &value) || errors.As(err, &name) {
		return true
	}
	if !errors.As(err, &server) || len(server.Code) < 2 {
		return false
	}
	switch server.Code[:2] {
	case "22", "23", "3F", "42", "44", "54", "P0": // data, constraints, names and rights, limits, raised
		return true
	}
	return false
}

func (f *flusher) finish(c *call, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.err = err
	close(c.done)
	if !c.abandoned {
		c.flush.release()
	}
}

// release says that one call less is waited for. When none is left, what is still being sent is cancelled:
// it may hang. The caller holds flusher.mu.
func (f *flush) release() {
	f.cared--
	if f.cared == 0 {
		f.cancel()
	}
}

// attempt sends calls in one transaction, and notes which queues each of them reached.
func (f *flusher) attempt(ctx context.Context, calls []*call) error {
	load := stow(calls)
	for i := range load.shipments {
		s := &load.shipments[i]
		s.Notify = s.Visibility == pgmq.Visibility{} && f.notifier.now(s.Queue, s.RoutingKey)
	}
	queues, err := f.client.SendMany(ctx, load.shipments)
	if err != nil {
		return err
	}
	for i := range load.shipments {
		if s := &load.shipments[i]; !s.Notify && s.Visibility == (pgmq.Visibility{}) {
			f.notifier.later(queues[i])
		}
	}
	for i, c := range calls {
		c.queues = make([][]string, len(load.of[i]))
		for j, at := range load.of[i] {
			c.queues[j] = queues[at]
		}
	}
	return nil
}

// load is the shipments of several calls, merged where they have the same destination.
type load struct {
	shipments []pgmq.Shipment
	of        [][]int // for each call, the indexes of its shipments
}

// stow merges calls. A call of several shipments keeps them apart: merging one of them into an
// earlier one could overtake another.
func stow(calls []*call) load {
	if len(calls) == 1 {
		l := load{shipments: calls[0].shipments, of: [][]int{nil}}
		for i := range l.shipments {
			l.of[0] = append(l.of[0], i)
		}
		return l
	}
	l := load{of: make([][]int, len(calls))}
	merged := map[shipmentKey]int{}
	for i, c := range calls {
		for _, s := range c.shipments {
			key := shipmentKey{s.Queue, s.RoutingKey, s.Visibility}
			at, ok := merged[key]
			if !ok || len(c.shipments) > 1 {
				at = len(l.shipments)
				l.shipments = append(l.shipments, s)
				l.shipments[at].Messages = slices.Clone(s.Messages)
				if len(c.shipments) == 1 {
					merged[key] = at
				}
			} else {
				l.shipments[at].Messages = append(l.shipments[at].Messages, s.Messages...)
			}
			l.of[i] = append(l.of[i], at)
		}
	}
	return l
}

type shipmentKey struct {
	queue, routingKey string
	visibility        pgmq.Visibility
}
