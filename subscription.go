package watermillpgmq

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/watermill-pgmq/watermill-pgmq/pgmq"
)

// MessageInfo is what PGMQ knows of a message that is being handled.
type MessageInfo struct {
	// Queue is the queue that it was read from, and ID its id there.
	Queue string
	ID    int64
	// ReadCount is how often it has been delivered, this time included.
	ReadCount int
	// EnqueuedAt is when the transaction began that published it.
	EnqueuedAt time.Time
	// Group is its FIFO group, empty if it has none.
	Group string
}

// MessageFromContext returns what PGMQ knows of the message whose context ctx is, or comes from.
func MessageFromContext(ctx context.Context) (MessageInfo, bool) {
	queue, msg, ok := pgmq.MessageFromContext(ctx)
	if !ok {
		return MessageInfo{}, false
	}
	return MessageInfo{
		Queue: queue, ID: msg.ID, ReadCount: msg.ReadCount, EnqueuedAt: msg.EnqueuedAt, Group: groupOf(msg),
	}, true
}

// groupOf is the group as the server has it: a string as it is, another value as its JSON.
func groupOf(msg pgmq.Message) string {
	var headers map[string]json.RawMessage
	if err := json.Unmarshal(msg.Headers, &headers); err != nil {
		return ""
	}
	group := headers[pgmq.GroupHeader]
	var text *string
	if err := json.Unmarshal(group, &text); err != nil {
		return string(group)
	}
	if text == nil {
		return ""
	}
	return *text
}

// subscription is one Subscribe call: it hands the leases of a reader to whoever reads the channel,
// and gives their answers back.
type subscription struct {
	ctx      context.Context // of Subscribe
	closing  context.Context // ended: the Subscriber is being closed
	topic    string
	queue    string
	reader   *pgmq.Reader
	cfg      SubscriberConfig
	logger   watermill.LoggerAdapter
	out      chan *message.Message
	handlers sync.WaitGroup
	// abandoned is closed when no answer is waited for any more, done when all has ended, with err.
	abandoned, done chan struct{}
	err             error
}

func newSubscription(ctx, closing context.Context, topic, queue string, reader *pgmq.Reader, cfg SubscriberConfig, logger watermill.LoggerAdapter) *subscription {
	return &subscription{
		ctx:       ctx,
		closing:   closing,
		topic:     topic,
		queue:     queue,
		reader:    reader,
		cfg:       cfg,
		logger:    logger,
		out:       make(chan *message.Message),
		abandoned: make(chan struct{}),
		done:      make(chan struct{}),
	}
}

// run delivers until the reader is stopped, by Close or by the end of Subscribe's context. Then it lets
// the handlers finish, and closes the channel last: Watermill's Router takes that as a sign to close
// the publisher which handlers may still be using.
func (s *subscription) run() {
	defer close(s.out)
	s.deliver()

	// Stop alone sets no limit to handlers.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	timeout := time.AfterFunc(math.MaxInt64, cancel)
	defer timeout.Stop()
	limit := sync.OnceFunc(func() { timeout.Reset(max(s.cfg.CloseTimeout, 0)) })
	defer context.AfterFunc(s.ctx, limit)()
	defer context.AfterFunc(s.closing, limit)()
	if s.err = s.reader.Close(ctx); s.err != nil {
		s.logger.Error("Messages stay hidden until their visibility timeout is over", s.err, nil)
	}
	close(s.abandoned)
	s.handlers.Wait()
}

func (s *subscription) deliver() {
	for {
		lease, err := s.reader.Next(context.Background())
		if err != nil {
			return // stopped: it has no other error
		}
		msg, err := s.cfg.Unmarshaler.Unmarshal(s.queue, lease.Message)
		if err != nil {
			s.logger.Error("Cannot unmarshal message, trying again later", err, watermill.LogFields{"msg_id": lease.ID})
			lease.Nack(s.nackDelay(lease, nil))
			continue
		}
		msg.SetContext(lease.Context())
		select {
		case s.out <- msg:
			s.handlers.Go(func() { s.settle(lease, msg) })
		case <-lease.Context().Done():
			lease.Release() // it was lost while nobody read the channel
		case <-s.reader.Stopped():
			lease.Release()
			return
		}
	}
}

// settle waits for the answer to a message. A lease that was lost still occupies its handler, so the
// answer is waited for all the same, though it has no effect any more. When the time for closing is
// over, what is there by then counts: an Ack at the last moment is not thrown away.
func (s *subscription) settle(lease *pgmq.Lease, msg *message.Message) {
	if s.answered(lease, msg, lease.Context().Done()) {
		return
	}
	if errors.Is(context.Cause(lease.Context()), pgmq.ErrLeaseLost) && s.answered(lease, msg, s.abandoned) {
		return
	}
	select {
	case <-msg.Acked():
		lease.Ack()
	default:
		lease.Nack(0)
	}
}

// answered waits for an Ack or a Nack and passes it on; false means that there was none until over.
func (s *subscription) answered(lease *pgmq.Lease, msg *message.Message, over <-chan struct{}) bool {
	select {
	case <-msg.Acked():
		lease.Ack()
	case <-msg.Nacked():
		lease.Nack(s.nackDelay(lease, msg))
	case <-over:
		return false
	}
	return true
}

func (s *subscription) nackDelay(lease *pgmq.Lease, msg *message.Message) time.Duration {
	return s.cfg.NackDelay(NackDelayParams{Topic: s.topic, Attempt: lease.ReadCount, Message: msg})
}
