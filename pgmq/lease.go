package pgmq

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"
)

var (
	// ErrLeaseLost is the cause with which a lease's context ends when the visibility timeout ran out
	// and somebody else may have the message now.
	ErrLeaseLost = errors.New("the lease of the message was lost")
	// ErrReaderClosed is what Next returns after Close, and the cause with which the contexts of
	// leases end that were still held when Close ran out of time.
	ErrReaderClosed = errors.New("the reader is closed")
	// ErrUnsettled is what Close returns when the database could not be reached for so long that some
	// settlements were given up. Their messages are delivered again.
	ErrUnsettled = errors.New("the database did not answer: not settled")
)

// Lease is a message that a Reader has taken from its queue: nobody else gets it until it is settled,
// and the reader keeps extending its visibility timeout. The first call of Ack, Nack or Release
// settles it; later ones do nothing. All of them return at once: the reader settles in batches, and
// retries until the database has answered. None of them has an effect on the row any more when the
// lease was lost in the meantime.
type Lease struct {
	Message
	reader  *Reader
	ctx     context.Context
	cancel  context.CancelCauseFunc
	until   time.Time     // guarded by reader.mu: on this process's clock, the row is ours at least until then
	settled bool          // guarded by reader.mu
	delay   time.Duration // of a nack, once settled
	group   string        // of a grouped reader
	handed  bool          // guarded by reader.mu: taken from the shelf to be handed out
}

// Context carries the values of the reader's context, and the message for MessageFromContext. It ends
// when the lease is settled, is lost (cause ErrLeaseLost), or could not be settled before Close ran
// out of time (cause ErrReaderClosed).
func (l *Lease) Context() context.Context { return l.ctx }

// Ack says that the message is done: it is deleted, or archived if the reader is configured so.
func (l *Lease) Ack() { l.reader.settle(l, settlement{kind: acked}) }

// Nack says that the message was not handled: it becomes visible again after delay, zero or negative
// meaning at once. Its read count stays.
func (l *Lease) Nack(delay time.Duration) {
	l.reader.settle(l, settlement{kind: nacked, delay: max(delay, 0)})
}

// Release gives the message back as if it had never been read: visible at once, and not counted.
func (l *Lease) Release() { l.reader.settle(l, settlement{kind: released}) }

// MessageFromContext returns the message, and its queue, in whose Lease.Context ctx has its origin.
func MessageFromContext(ctx context.Context) (queue string, msg Message, ok bool) {
	l, ok := ctx.Value(leaseKey{}).(*Lease)
	if !ok {
		return "", Message{}, false
	}
	return l.reader.leasing.queue, l.Message, true
}

// open makes the context; a lease that is never handed out needs none.
func (l *Lease) open() {
	ctx, cancel := context.WithCancelCause(l.reader.base)
	l.ctx, l.cancel = &leaseContext{Context: ctx, lease: l}, cancel
}

// sortLeases puts leases in the order of their ids, in which every statement locks their rows.
func sortLeases(leases []*Lease) {
	slices.SortFunc(leases, func(a, b *Lease) int { return cmp.Compare(a.ID, b.ID) })
}

type leaseKey struct{}

// leaseContext adds the lease to a context without one more allocation for a key and a value.
type leaseContext struct {
	context.Context
	lease *Lease
}

func (c *leaseContext) Value(key any) any {
	if key == (leaseKey{}) {
		return c.lease
	}
	return c.Context.Value(key)
}
