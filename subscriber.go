package watermillpgmq

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

// SubscriberConfig configures a Subscriber. The zero value subscribes to topics without a consumer
// group and handles one message at a time.
type SubscriberConfig struct {
	// Topology says which queue a topic is read from. Default: TopicTopology{}.
	Topology Topology
	// ConsumerGroup: subscribers of the same group share the messages of a topic, and each group gets
	// its own copy of them. Default: the group without a name.
	ConsumerGroup string
	// Unmarshaler makes messages from what is stored. Default: JSONMarshaler{}, which also reads what
	// ExactMarshaler wrote.
	Unmarshaler Unmarshaler

	// Ordering: PerGroup delivers the messages of each FIFO group strictly in order. Default: Unordered.
	Ordering Ordering
	// Concurrency is how many messages of one Subscribe call may be un-acked at a time. Default: 1,
	// Watermill's contract. With more, messages are handled in no particular order, unless Ordering says so.
	Concurrency int
	// Buffer bounds how many messages one Subscribe call holds in memory. It holds fewer where they
	// are handled slowly, never more than are handled in about a second. Default: 1000, or Concurrency
	// if that is more. At least Concurrency.
	Buffer int
	// VisibilityTimeout is how long the messages of a process that died stay hidden from others. A
	// living one extends it for as long as a message is being handled. Default: 30 s. At least 1 s.
	VisibilityTimeout time.Duration
	// NackDelay is how long a nacked message stays hidden before it is delivered again; a negative
	// result is taken for 0. Default: ExponentialNackDelay(time.Second, time.Minute).
	NackDelay func(NackDelayParams) time.Duration
	// ArchiveOnAck moves acked messages into the queue's archive. Default: false, they are deleted.
	ArchiveOnAck bool

	// PollInterval is how often idle queues are looked at, all of one Subscriber in one query. It
	// bounds how late a message is noticed whose notification does not arrive. Default: 1 s. At least
	// 1 ms.
	PollInterval time.Duration
	// DisableListen leaves out LISTEN and the connection it needs, and relies on PollInterval.
	// Default: false.
	DisableListen bool
	// CloseTimeout is how long handlers may go on when the Subscriber is closed or the context of
	// Subscribe ends, before the contexts of their messages end. Default: 10 s. Negative: they end at
	// once.
	CloseTimeout time.Duration
}

// NackDelayParams is what the delay of a nacked message can depend on.
type NackDelayParams struct {
	// Topic is the topic of the Subscribe call.
	Topic string
	// Attempt is how often the message has been delivered, this time included: 1 or more.
	Attempt int
	// Message is the message that was nacked. Nil: it could not be unmarshaled.
	Message *message.Message
}

const (
	defaultCloseTimeout = 10 * time.Second
	defaultNackDelay    = time.Second
	defaultNackDelayMax = time.Minute
)

// ExponentialNackDelay doubles the delay from one attempt to the next, from first up to most, and
// spreads each by a fifth in both directions, so that messages which failed together do not return
// together.
func ExponentialNackDelay(first, most time.Duration) func(NackDelayParams) time.Duration {
	return func(params NackDelayParams) time.Duration {
		d := min(float64(first)*math.Pow(2, float64(max(params.Attempt-1, 0))), float64(most))
		return time.Duration(d * (0.8 + 0.4*rand.Float64()))
	}
}

// ConstantNackDelay is the same delay for every attempt.
func ConstantNackDelay(d time.Duration) func(NackDelayParams) time.Duration {
	return func(NackDelayParams) time.Duration { return d }
}

func (cfg SubscriberConfig) withDefaults() SubscriberConfig {
	if cfg.Topology == nil {
		cfg.Topology = TopicTopology{}
	}
	if cfg.Unmarshaler == nil {
		cfg.Unmarshaler = JSONMarshaler{}
	}
	if cfg.NackDelay == nil {
		cfg.NackDelay = ExponentialNackDelay(defaultNackDelay, defaultNackDelayMax)
	}
	if cfg.CloseTimeout == 0 {
		cfg.CloseTimeout = defaultCloseTimeout
	}
	return cfg
}

// Validate returns a *ConfigError that names the first field with an invalid value. Zero values are
// valid: they mean the default.
func (cfg SubscriberConfig) Validate() error {
	if cfg.Ordering != Unordered && cfg.Ordering != PerGroup {
		return &ConfigError{Field: "Ordering", Value: int(cfg.Ordering), Rule: "Unordered or PerGroup"}
	}
	err := errors.Join(cfg.watcher(nil).Validate(), cfg.reader(nil, nil).Validate())
	var value *pgmq.ValueError
	if errors.As(err, &value) {
		return &ConfigError{Field: value.Name, Value: value.Value, Rule: value.Rule}
	}
	return err
}

func (cfg SubscriberConfig) watcher(logger watermill.LoggerAdapter) pgmq.WatcherConfig {
	return pgmq.WatcherConfig{
		PollInterval:  cfg.PollInterval,
		DisableListen: cfg.DisableListen,
		Logger:        slogFor(orNop(logger)),
	}
}

func (cfg SubscriberConfig) reader(watcher *pgmq.Watcher, logger watermill.LoggerAdapter) pgmq.ReaderConfig {
	return pgmq.ReaderConfig{
		Concurrency:       cfg.Concurrency,
		Buffer:            cfg.Buffer,
		VisibilityTimeout: cfg.VisibilityTimeout,
		Grouped:           cfg.Ordering == PerGroup,
		Archive:           cfg.ArchiveOnAck,
		Watcher:           watcher,
		Logger:            slogFor(orNop(logger)),
	}
}

// Subscriber delivers messages from PGMQ to Watermill. It is safe for concurrent use. All of its
// subscriptions share one connection that listens, which is outside of the pool.
type Subscriber struct {
	client *pgmq.Client
	cfg    SubscriberConfig
	logger watermill.LoggerAdapter

	mu            sync.Mutex
	stopped       bool
	watcher       *pgmq.Watcher // nil: no subscription yet
	queues        map[string]string
	subscriptions map[*subscription]struct{}

	closeOnce sync.Once
	closing   context.Context // ended, by close: Close was called
	close     context.CancelFunc
	closed    error
}

var (
	_ message.Subscriber           = (*Subscriber)(nil)
	_ message.SubscribeInitializer = (*Subscriber)(nil)
)

// NewSubscriber returns a Subscriber on db, without using it yet. A nil logger is watermill.NopLogger{}.
// The errors are ErrNilDB and *ConfigError.
func NewSubscriber(db *pgxpool.Pool, cfg SubscriberConfig, logger watermill.LoggerAdapter) (*Subscriber, error) {
	if db == nil {
		return nil, ErrNilDB
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	closing, cancel := context.WithCancel(context.Background())
	return &Subscriber{
		client:        pgmq.New(db),
		cfg:           cfg.withDefaults(),
		logger:        orNop(logger),
		queues:        map[string]string{},
		subscriptions: map[*subscription]struct{}{},
		closing:       closing,
		close:         cancel,
	}, nil
}

// Subscribe delivers the messages of a topic, which may have wildcards in a TopicTopology, from the
// moment on at which its queue was first bound: by this call, by SubscribeInitialize, or long ago. The
// queue and its binding stay when the subscription ends, so that nothing is missed in between.
//
// The channel is closed after Close, or after ctx has ended: first no more messages are delivered, then
// handlers have CloseTimeout to finish and to ack. Each message's context has the values of ctx, and
// the message for MessageFromContext; it ends after Ack or Nack, when CloseTimeout is over, or when its
// lease is lost and somebody else may get the message (cause pgmq.ErrLeaseLost).
//
// The errors are ErrSubscriberClosed, *TopicError, *ConsumerGroupError, ErrQueueConflict, the error of
// ctx, and *pgmq.Error.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	source, err := s.provide(ctx, topic)
	if err != nil {
		return nil, err
	}
	watcher, err := s.watch()
	if err != nil {
		return nil, err
	}
	logger := s.logger.With(watermill.LogFields{"topic": topic, "queue": source.Queue, "consumer_group": s.cfg.ConsumerGroup})
	reader, err := s.client.NewReader(ctx, source.Queue, s.cfg.reader(watcher, logger))
	if err != nil {
		return nil, fmt.Errorf("subscribe to %q: %w", topic, err)
	}
	sub := newSubscription(ctx, s.closing, topic, source.Queue, reader, s.cfg, logger)
	if !s.start(sub) {
		return nil, errors.Join(ErrSubscriberClosed, reader.Close(ctx))
	}
	return sub.out, nil
}

// start runs a subscription; false means that the Subscriber was stopped meanwhile.
func (s *Subscriber) start(sub *subscription) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	s.subscriptions[sub] = struct{}{}
	go func() {
		sub.run()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.subscriptions, sub)
		close(sub.done)
	}()
	return true
}

// watch returns the watcher that all subscriptions share.
func (s *Subscriber) watch() (watcher *pgmq.Watcher, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil, ErrSubscriberClosed
	}
	if s.watcher == nil {
		s.watcher, err = s.client.NewWatcher(s.cfg.watcher(s.logger))
	}
	return s.watcher, err
}

// SubscribeInitialize creates the queue of a topic and its binding, so that messages published from
// then on wait for a subscriber. The errors are those of Subscribe.
func (s *Subscriber) SubscribeInitialize(topic string) error {
	_, err := s.provide(context.Background(), topic)
	return err
}

// Stop ends the delivery of messages and returns at once: what is being handled can still be acked,
// until Close, which is still to be called.
func (s *Subscriber) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	for sub := range s.subscriptions {
		sub.reader.Stop()
	}
	return nil
}

// Close stops the delivery of messages, lets handlers finish for up to CloseTimeout, settles what was
// acked or nacked, makes everything else visible to others at once, and closes the channels. When it
// returns, no goroutine is left. Several calls are one. The database stays open.
//
// An error says that the database could not be reached: messages that were acked may be delivered
// again (pgmq.ErrUnsettled).
func (s *Subscriber) Close() error {
	s.closeOnce.Do(func() {
		_ = s.Stop() // it never fails
		s.close()
		s.closed = s.join()
	})
	return s.closed
}

func (s *Subscriber) join() error {
	s.mu.Lock()
	watcher := s.watcher
	subscriptions := make([]*subscription, 0, len(s.subscriptions))
	for sub := range s.subscriptions {
		subscriptions = append(subscriptions, sub)
	}
	s.mu.Unlock()

	var errs []error
	for _, sub := range subscriptions {
		<-sub.done
		errs = append(errs, sub.err)
	}
	if watcher != nil {
		watcher.Close()
	}
	return errors.Join(errs...)
}

// provide makes sure that the queue of a topic exists and is bound, and returns it.
func (s *Subscriber) provide(ctx context.Context, topic string) (Source, error) {
	source, err := s.cfg.Topology.SubscribeTo(topic, s.cfg.ConsumerGroup)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = s.reserve(topic, source)
	}
	if err == nil {
		err = s.create(ctx, source)
	}
	if err != nil {
		return Source{}, fmt.Errorf("subscribe to %q: %w", topic, err)
	}
	return source, nil
}

// reserve notes that a topic has a queue, which no other topic may have.
func (s *Subscriber) reserve(topic string, source Source) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return ErrSubscriberClosed
	}
	if other, taken := s.queues[source.Queue]; taken && other != topic {
		return fmt.Errorf("%w: %q has %q too", ErrQueueConflict, other, source.Queue)
	}
	s.queues[source.Queue] = topic
	return nil
}

// create makes what is missing. A role that may not create anything can subscribe to what is there.
func (s *Subscriber) create(ctx context.Context, source Source) error {
	if source.Pattern != "" {
		bindings, err := s.client.Bindings(ctx, source.Queue)
		if err != nil || slices.ContainsFunc(bindings, func(b pgmq.Binding) bool { return b.Pattern == source.Pattern }) {
			return err
		}
	}
	queues, err := s.client.Queues(ctx)
	if err != nil {
		return err
	}
	exists := slices.ContainsFunc(queues, func(q pgmq.Queue) bool { return q.Name == source.Queue })
	if exists && source.Pattern == "" {
		return nil
	}
	return s.client.InTx(ctx, func(tx *pgmq.Client) error {
		if err := tx.CreateQueue(ctx, source.Queue); err != nil {
			return err
		}
		// On a queue that is new the index costs nothing, while later it has to wait for transactions that
		// write to the queue.
		if !exists && s.cfg.Ordering == PerGroup {
			if err := tx.PrepareGroups(ctx, source.Queue); err != nil {
				return err
			}
		}
		if source.Pattern == "" {
			return nil
		}
		return tx.BindTopic(ctx, source.Pattern, source.Queue)
	})
}
