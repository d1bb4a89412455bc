package watermillpgmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/components/delay"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

// PublisherConfig configures a Publisher. The zero value publishes to topics, as JSON.
type PublisherConfig struct {
	// Topology says where the messages of a topic go. Default: TopicTopology{}.
	Topology Topology
	// Marshaler makes what is stored of a message. Default: JSONMarshaler{}.
	Marshaler Marshaler
	// GroupKey says which FIFO group a message belongs to, for subscribers with Ordering PerGroup: at
	// most 200 characters; empty is no group. See GroupByMetadata, GroupByJSONField and GroupByTopic.
	// Default: nil, no groups.
	GroupKey func(GroupKeyParams) (string, error)
	// SerializeGroups makes the order of ids within a group the order of commits: whoever publishes to a
	// group keeps other publishers with this setting from doing so until its transaction ends. Without
	// it, of two transactions that publish to one group at the same time, the later commit may have the
	// smaller id, and be delivered after what was committed, and perhaps handled, before. Transactions
	// that publish to several groups in different orders can deadlock; Postgres ends one of them. Calls
	// do not share round trips then. It needs GroupKey. Default: false.
	SerializeGroups bool
	// Unroutable says what happens with messages for a topic that leads to no queue. Default:
	// FailUnroutable.
	Unroutable Unroutable
}

func (cfg PublisherConfig) withDefaults() PublisherConfig {
	if cfg.Topology == nil {
		cfg.Topology = TopicTopology{}
	}
	if cfg.Marshaler == nil {
		cfg.Marshaler = JSONMarshaler{}
	}
	return cfg
}

// Validate returns a *ConfigError that names the first field with an invalid value. Zero values are
// valid: they mean the default.
func (cfg PublisherConfig) Validate() error {
	if cfg.SerializeGroups && cfg.GroupKey == nil {
		return &ConfigError{Field: "SerializeGroups", Value: true, Rule: "together with GroupKey"}
	}
	if cfg.Unroutable.action == keepUnroutable {
		if err := pgmq.ValidateQueueName(cfg.Unroutable.queue); err != nil {
			return &ConfigError{Field: "Unroutable", Value: fmt.Sprintf("%q", cfg.Unroutable.queue), Rule: fmt.Sprintf("a queue name: %v", err)}
		}
	}
	return nil
}

// Unroutable says what happens with messages that are published to a topic which leads to no queue.
// The zero value is FailUnroutable.
type Unroutable struct {
	action unroutableAction
	queue  string
}

type unroutableAction int

const (
	failUnroutable unroutableAction = iota
	dropUnroutable
	keepUnroutable
)

// FailUnroutable makes Publish return an *UnroutableError.
func FailUnroutable() Unroutable { return Unroutable{} }

// DropUnroutable makes Publish return nil although nobody will get the message: for events that are
// of no interest without a subscriber.
func DropUnroutable() Unroutable { return Unroutable{action: dropUnroutable} }

// KeepUnroutable sends such messages to a queue, which is created when it is needed.
func KeepUnroutable(queue string) Unroutable { return Unroutable{action: keepUnroutable, queue: queue} }

// Publisher publishes Watermill messages to PGMQ. It is safe for concurrent use.
type Publisher struct {
	client   *pgmq.Client
	cfg      PublisherConfig
	flusher  *flusher
	fallback *creation

	mu     sync.RWMutex // held for reading while a Publish call is let in
	closed bool
	calls  sync.WaitGroup
}

var _ message.Publisher = (*Publisher)(nil)

// NewPublisher returns a Publisher on db, without using it yet. A nil logger is watermill.NopLogger{}.
// The errors are ErrNilDB and *ConfigError.
func NewPublisher(db *pgxpool.Pool, cfg PublisherConfig, logger watermill.LoggerAdapter) (*Publisher, error) {
	if db == nil {
		return nil, ErrNilDB
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	client := pgmq.New(db)
	return &Publisher{
		client:   client,
		cfg:      cfg.withDefaults(),
		flusher:  newFlusher(client, orNop(logger)),
		fallback: newCreation(),
	}, nil
}

// Publish writes all messages or none, in their order, and returns when they are committed; with a
// transaction in the messages' contexts (WithTx) when they are written in it. Calls at the same time
// share round trips and commits, but not their fate.
//
// The context of each message counts: when one ends before its messages are on their way, nothing is
// written and its error returned; when it ends later, ErrOutcomeUnknown is in the error too, unless the
// messages are in a transaction, which cannot commit then. The delay
// of components/delay is honoured.
//
// The errors are ErrPublisherClosed, *TopicError, what the Marshaler returned, ErrMixedTransactions,
// *UnroutableError, the error of a context, and *pgmq.Error.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	return p.publish(transaction{}, topic, messages)
}

// publish is Publish in a given transaction, or in the one that the messages carry, or in none.
func (p *Publisher) publish(given transaction, topic string, messages []*message.Message) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.calls.Done()
	if len(messages) == 0 {
		return nil
	}

	to, err := p.cfg.Topology.PublishTo(topic)
	if err != nil {
		return err
	}
	tx, err := transactionOf(messages, given)
	if err != nil {
		return fmt.Errorf("publish to %q: %w", topic, err)
	}
	shipments, err := p.ship(topic, to, messages)
	if err != nil {
		return err
	}
	ctx, release := commonContext(messages)
	defer release()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("publish to %q: %w", topic, context.Cause(ctx))
	}
	var queues [][]string
	if tx.none() {
		queues, err = p.send(ctx, shipments)
	} else {
		queues, err = p.sendInTx(ctx, tx.client(), shipments)
	}
	if err != nil {
		return fmt.Errorf("publish to %q: %w", topic, err)
	}
	if p.cfg.Unroutable.action == failUnroutable && slices.ContainsFunc(queues, nowhere) {
		return &UnroutableError{Topic: topic, RoutingKey: to.RoutingKey}
	}
	return nil
}

// nowhere says that a shipment reached no queue.
func nowhere(queues []string) bool { return len(queues) == 0 }

// send sends in a transaction of its own, or of its own and other calls'.
func (p *Publisher) send(ctx context.Context, shipments []pgmq.Shipment) ([][]string, error) {
	if p.cfg.Unroutable.action != keepUnroutable {
		return p.sendAlone(ctx, shipments)
	}
	for i := range shipments {
		shipments[i].Fallback = p.cfg.Unroutable.queue
	}
	if err := p.fallback.once(ctx, p.createFallback); err != nil {
		return nil, err
	}
	queues, err := p.sendAlone(ctx, shipments)
	if errors.Is(err, pgmq.ErrQueueNotFound) && shipments[0].Queue == "" {
		// It has been dropped since it was created.
		p.fallback.again()
		if err := p.fallback.once(ctx, p.createFallback); err != nil {
			return nil, err
		}
		return p.sendAlone(ctx, shipments)
	}
	return queues, err
}

func (p *Publisher) sendAlone(ctx context.Context, shipments []pgmq.Shipment) ([][]string, error) {
	if !p.cfg.SerializeGroups {
		return p.flusher.send(ctx, shipments)
	}
	// Waiting for a group must not hold up calls that share the flush.
	for i := range shipments {
		shipments[i].Notify = true
	}
	queues, err := p.client.SendMany(ctx, shipments)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	}
	return queues, err
}

// sendInTx sends in the caller's transaction, which decides when the notification is sent, so that one is
// always asked for. The queue for unroutable messages would be locked until the transaction ends if it
// were created there: if it is missing, another connection creates it.
func (p *Publisher) sendInTx(ctx context.Context, client *pgmq.Client, shipments []pgmq.Shipment) ([][]string, error) {
	for i := range shipments {
		shipments[i].Notify = true
	}
	queues, err := client.SendMany(ctx, shipments)
	if err != nil || p.cfg.Unroutable.action != keepUnroutable || !slices.ContainsFunc(queues, nowhere) {
		return queues, err
	}
	fallback := p.cfg.Unroutable.queue
	existing, err := client.Queues(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(existing, func(q pgmq.Queue) bool { return q.Name == fallback }) {
		if err := p.createFallback(ctx); err != nil {
			return nil, err
		}
	}
	var kept []pgmq.Shipment
	for i := range shipments {
		if nowhere(queues[i]) {
			shipments[i].Queue, shipments[i].RoutingKey = fallback, ""
			kept = append(kept, shipments[i])
		}
	}
	return client.SendMany(ctx, kept)
}

func (p *Publisher) createFallback(ctx context.Context) error {
	return p.client.CreateQueue(ctx, p.cfg.Unroutable.queue)
}

// Close waits for the Publish calls that are under way. Later ones return ErrPublisherClosed. The
// database stays open. Several calls are one.
func (p *Publisher) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.calls.Wait()
	p.flusher.close()
	return nil
}

func (p *Publisher) enter() error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return ErrPublisherClosed
	}
	p.calls.Add(1)
	return nil
}

// ship makes the shipments of a call: one, unless its messages have different delays. Neighbours with
// the same delay stay together, so that the order is kept.
func (p *Publisher) ship(topic string, to Destination, messages []*message.Message) ([]pgmq.Shipment, error) {
	var shipments []pgmq.Shipment
	for _, msg := range messages {
		out, err := p.cfg.Marshaler.Marshal(topic, msg)
		var group string
		if err == nil {
			group, err = p.group(topic, msg, &out)
		}
		if err != nil {
			return nil, fmt.Errorf("publish to %q: %w", topic, err)
		}
		visible, err := visibilityOf(msg)
		if err != nil {
			return nil, fmt.Errorf("publish to %q: message %q: %w", topic, msg.UUID, err)
		}
		if n := len(shipments); n == 0 || shipments[n-1].Visibility != visible {
			shipments = append(shipments, pgmq.Shipment{
				Queue:      to.Queue,
				RoutingKey: to.RoutingKey,
				Visibility: visible,
				Messages:   make([]pgmq.Outgoing, 0, len(messages)),
			})
		}
		last := &shipments[len(shipments)-1]
		last.Messages = append(last.Messages, out)
		if p.cfg.SerializeGroups {
			last.Serialize = append(last.Serialize, group)
		}
	}
	return shipments, nil
}

// group sets the group of a message, if there are groups, and returns it.
func (p *Publisher) group(topic string, msg *message.Message, out *pgmq.Outgoing) (string, error) {
	if p.cfg.GroupKey == nil {
		return "", nil
	}
	key, err := p.cfg.GroupKey(GroupKeyParams{Topic: topic, Message: msg})
	if err != nil {
		return "", &GroupKeyError{UUID: msg.UUID, Err: err}
	}
	return key, setGroup(out, msg.UUID, key)
}

// visibilityOf reads the delay that components/delay has put into the metadata. The duration is the
// exact one; the instant has only seconds, and counts where it stands alone.
func visibilityOf(msg *message.Message) (pgmq.Visibility, error) {
	if text := msg.Metadata.Get(delay.DelayedForKey); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			return pgmq.Visibility{}, &pgmq.ValueError{Name: delay.DelayedForKey, Value: text, Rule: "a duration such as 1m30s"}
		}
		return pgmq.VisibleIn(max(d, 0)), nil
	}
	if text := msg.Metadata.Get(delay.DelayedUntilKey); text != "" {
		t, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return pgmq.Visibility{}, &pgmq.ValueError{Name: delay.DelayedUntilKey, Value: text, Rule: "an instant such as 2006-01-02T15:04:05Z"}
		}
		return pgmq.VisibleAt(t), nil
	}
	return pgmq.Visibility{}, nil
}

// commonContext ends with the first of the messages' contexts.
func commonContext(messages []*message.Message) (context.Context, func()) {
	first := messages[0].Context()
	var more []context.Context
	for _, msg := range messages[1:] {
		if ctx := msg.Context(); ctx != first && ctx.Done() != nil {
			more = append(more, ctx)
		}
	}
	if len(more) == 0 {
		return first, func() {}
	}
	ctx, cancel := context.WithCancelCause(first)
	stops := make([]func() bool, len(more))
	for i, other := range more {
		stops[i] = context.AfterFunc(other, func() { cancel(context.Cause(other)) })
		if other.Err() != nil {
			cancel(context.Cause(other)) // at once: AfterFunc runs on a goroutine of its own
		}
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel(nil)
	}
}

// creation does something until it has worked once. Others wait for it no longer than their contexts last.
type creation struct {
	turn chan struct{} // holds one value while nobody is at it
	done atomic.Bool
}

func newCreation() *creation {
	c := &creation{turn: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	return c
}

func (c *creation) once(ctx context.Context, create func(context.Context) error) error {
	if c.done.Load() {
		return nil
	}
	select {
	case <-c.turn:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { c.turn <- struct{}{} }()
	if c.done.Load() {
		return nil
	}
	if err := create(ctx); err != nil {
		return err
	}
	c.done.Store(true)
	return nil
}

func (c *creation) again() { c.done.Store(false) }
